//! Schemas and objects as text in, Kubernetes' sentences out.

use super::*;
use serde_json::json;

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn compile(schema: &str) -> Structural {
    Structural::compile(&yaml(schema)).unwrap()
}

/// The schema of `spec`, wrapped as a CRD has it.
fn spec(schema: &str) -> Structural {
    let schema = json!({"type": "object", "properties": {"spec": yaml(schema)}});
    Structural::compile(&schema).unwrap()
}

/// Faults of a `spec` as Kubernetes prints them, one a line.
fn check(schema: &str, value: &str) -> String {
    let errors = spec(schema).validate(&json!({"spec": yaml(value)}), None);
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Faults when `old` becomes `new`.
fn change(schema: &str, old: &str, new: &str) -> String {
    let (old, new) = (json!({"spec": yaml(old)}), json!({"spec": yaml(new)}));
    let errors = spec(schema).validate(&new, Some(&old));
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn types_and_required() {
    let schema =
        "{type: object, required: [size], properties: {size: {type: integer}, name: {type: string},
        rate: {type: number}, on: {type: boolean}, port: {x-kubernetes-int-or-string: true},
        maybe: {type: string, nullable: true}}}";
    assert_eq!(
        check(
            schema,
            "{size: 1, name: x, rate: 1, on: true, port: http, maybe: null}"
        ),
        ""
    );
    assert_eq!(check(schema, "{size: 2.0, port: 80}"), "");
    assert_eq!(check(schema, "{}"), "spec.size: Required value");
    assert_eq!(
        check(schema, "{size: big}"),
        r#"spec.size: Invalid value: "string": spec.size in body must be of type integer: "string""#
    );
    assert_eq!(
        check(schema, "{size: 1.5}"),
        r#"spec.size: Invalid value: "number": spec.size in body must be of type integer: "number""#
    );
    assert_eq!(
        check(schema, "{size: 1, name: null}"),
        r#"spec.name: Invalid value: "null": spec.name in body must be of type string: "null""#
    );
    assert_eq!(
        check(schema, "{size: 1, port: true}"),
        r#"spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean""#
    );
    let errors = spec(schema).validate(&json!({"spec": {}}), None);
    assert_eq!(
        Cause::from(errors[0].clone()),
        Cause::new("FieldValueRequired", "spec.size", "Required value")
    );
}

#[test]
fn limits() {
    let schema = "{type: object, properties: {n: {type: integer, minimum: 1, maximum: 5, format: int32},
        x: {type: number, minimum: 0, exclusiveMinimum: true, multipleOf: 0.5},
        s: {type: string, minLength: 2, maxLength: 3, pattern: '^[a-z]*$'}, e: {type: string, enum: [A, B]},
        l: {type: array, minItems: 1, maxItems: 2, items: {type: string}},
        m: {type: object, maxProperties: 1, additionalProperties: {type: string}}}}";
    assert_eq!(
        check(schema, "{n: 3, x: 0.5, s: ab, e: A, l: [x], m: {a: b}}"),
        ""
    );
    for (value, wanted) in [
        (
            "{n: 0}",
            "spec.n: Invalid value: 0: spec.n in body should be greater than or equal to 1",
        ),
        (
            "{n: 6}",
            "spec.n: Invalid value: 6: spec.n in body should be less than or equal to 5",
        ),
        (
            "{x: 0}",
            "spec.x: Invalid value: 0: spec.x in body should be greater than 0",
        ),
        (
            "{x: 0.7}",
            "spec.x: Invalid value: 0.7: spec.x in body should be a multiple of 0.5",
        ),
        (
            "{s: a}",
            r#"spec.s: Invalid value: "a": spec.s in body should be at least 2 chars long"#,
        ),
        (
            "{s: abcd}",
            "spec.s: Too long: may not be more than 3 bytes",
        ),
        (
            "{s: AB}",
            r#"spec.s: Invalid value: "AB": spec.s in body should match '^[a-z]*$'"#,
        ),
        (
            "{e: C}",
            r#"spec.e: Unsupported value: "C": supported values: "A", "B""#,
        ),
        (
            "{l: []}",
            "spec.l: Invalid value: 0: spec.l in body should have at least 1 items",
        ),
        (
            "{l: [a, b, c]}",
            "spec.l: Too many: 3: must have at most 2 items",
        ),
        (
            "{l: [1]}",
            r#"spec.l[0]: Invalid value: "integer": spec.l[0] in body must be of type string: "integer""#,
        ),
        (
            "{m: {a: b, c: d}}",
            "spec.m: Too many: 2: must have at most 1 items",
        ),
        (
            "{m: {a: 1}}",
            r#"spec.m.a: Invalid value: "integer": spec.m.a in body must be of type string: "integer""#,
        ),
    ] {
        assert_eq!(check(schema, value), wanted, "{value}");
    }
}

#[test]
fn formats() {
    let good = [
        ("date-time", "2024-01-01T00:00:00Z"),
        ("date-time", "2024-01-01T00:00:00.123+02:00"),
        ("date", "2024-02-29"),
        ("duration", "1h30m"),
        ("duration", "-1.5s"),
        ("duration", "300ms"),
        ("byte", "aGk="),
        ("ipv4", "10.0.0.1"),
        ("ipv6", "::1"),
        ("cidr", "10.0.0.0/8"),
        ("mac", "00:11:22:33:44:55"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000"),
        ("hostname", "a.example"),
        ("email", "a@b.example"),
        ("uri", "https://a.example/x"),
        ("made-up", "anything"),
    ];
    for (format, text) in good {
        assert!(format::fits(format, text), "{format} {text}");
    }
    let bad = [
        ("date-time", "2024-01-01"),
        ("date", "2023-02-29"),
        ("duration", "1d"),
        ("duration", ""),
        ("byte", "%"),
        ("ipv4", "::1"),
        ("cidr", "10.0.0.0/33"),
        ("mac", "0:1"),
        ("uuid", "x"),
        ("hostname", "-a"),
        ("email", "a"),
    ];
    for (format, text) in bad {
        assert!(!format::fits(format, text), "{format} {text}");
    }
    assert_eq!(
        check(
            "{type: object, properties: {t: {type: string, format: date-time}}}",
            "{t: now}"
        ),
        r#"spec.t: Invalid value: "now": spec.t in body must be of type date-time: "now""#
    );
}

#[test]
fn combinations() {
    let one = "{type: object, properties: {a: {type: string}, b: {type: string}},
        oneOf: [{required: [a]}, {required: [b]}]}";
    assert_eq!(check(one, "{a: x}"), "");
    assert_eq!(
        check(one, "{}"),
        "spec: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid\n\
         spec.a: Required value"
    );
    assert_eq!(
        check(one, "{a: x, b: z}"),
        r#"spec: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#
    );
    let not = "{type: object, properties: {a: {type: string}}, not: {required: [a]}}";
    assert_eq!(
        check(not, "{a: x}"),
        r#"spec: Invalid value: "": "spec" must not validate the schema (not)"#
    );
    let any = "{type: integer, anyOf: [{maximum: 1}, {minimum: 5}], allOf: [{multipleOf: 1}]}";
    assert_eq!(check(any, "0"), "");
    assert!(check(any, "3").starts_with(
        r#"spec: Invalid value: 3: "spec" must validate at least one schema (anyOf)"#
    ));
}

#[test]
fn lists_with_keys() {
    let schema = "{type: object, properties: {ports: {type: array, x-kubernetes-list-type: map,
        x-kubernetes-list-map-keys: [port, protocol], items: {type: object, required: [port],
        properties: {port: {type: integer}, protocol: {type: string, default: TCP}, x: {type: string, maxLength: 1}}}},
        tags: {type: array, x-kubernetes-list-type: set, items: {type: string}}}}";
    assert_eq!(
        check(
            schema,
            "{ports: [{port: 1}, {port: 1, protocol: UDP}], tags: [a, b]}"
        ),
        ""
    );
    assert_eq!(
        check(schema, "{ports: [{port: 1}, {port: 1, protocol: TCP}]}"),
        r#"spec.ports[1]: Duplicate value: {"port":1,"protocol":"TCP"}"#
    );
    assert_eq!(
        check(schema, "{tags: [a, a]}"),
        r#"spec.tags[1]: Duplicate value: "a""#
    );
    // What was wrong before and did not change is let pass, even when it moves.
    assert_eq!(
        change(
            schema,
            "{ports: [{port: 1, x: long}]}",
            "{ports: [{port: 2}, {port: 1, x: long}]}"
        ),
        ""
    );
    assert_ne!(
        change(
            schema,
            "{ports: [{port: 1, x: long}]}",
            "{ports: [{port: 1, x: longer}]}"
        ),
        ""
    );
}

#[test]
fn unknown_fields_and_pruning() {
    let schema = spec(
        "{type: object, properties: {a: {type: object, properties: {b: {type: string}}},
        l: {type: array, items: {type: object, properties: {x: {type: string}}}},
        free: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {t: {type: object}}},
        any: {x-kubernetes-preserve-unknown-fields: true}, map: {type: object, additionalProperties: {type: object}},
        pod: {type: object, x-kubernetes-embedded-resource: true, properties: {spec: {type: object}}}}}",
    );
    let mut object = yaml(
        "{apiVersion: v1, kind: X, metadata: {name: n, odd: 1}, status: 1, spec: {a: {b: x, c: 1}, d: 2,
        l: [{x: x}, {y: 1}], free: {z: {z: 1}, t: {u: 1}}, any: [{q: 1}], map: {k: {v: 1}},
        pod: {apiVersion: v1, kind: Pod, metadata: {labels: {}}, spec: {x: 1}, status: 1}}}",
    );
    assert_eq!(
        schema.unknown_fields(&object),
        [
            "spec.a.c",
            "spec.d",
            "spec.free.t.u",
            "spec.l[1].y",
            "spec.map.k.v",
            "spec.pod.spec.x",
            "spec.pod.status",
            "status"
        ]
    );
    schema.prune(&mut object);
    assert_eq!(
        object,
        yaml(
            "{apiVersion: v1, kind: X, metadata: {name: n, odd: 1}, spec: {a: {b: x}, l: [{x: x}, {}],
            free: {z: {z: 1}, t: {}}, any: [{q: 1}], map: {k: {}},
            pod: {apiVersion: v1, kind: Pod, metadata: {labels: {}}, spec: {}}}}"
        )
    );
    assert!(schema.unknown_fields(&object).is_empty());
}

#[test]
fn defaults() {
    let schema = spec(
        "{type: object, default: {}, properties: {n: {type: integer, default: 3},
        o: {type: object, default: {}, properties: {s: {type: string, default: x}}},
        l: {type: array, items: {type: object, properties: {p: {type: string, default: TCP}}}},
        maybe: {type: string, nullable: true, default: z}}}",
    );
    let defaulted = |text: &str| {
        let mut value = yaml(text);
        schema.default(&mut value);
        value
    };
    assert_eq!(defaulted("{}"), yaml("{spec: {n: 3, o: {s: x}, maybe: z}}"));
    assert_eq!(
        defaulted("{spec: {n: null, o: {s: z}, l: [{}, {p: UDP}], maybe: null}}"),
        yaml("{spec: {n: 3, o: {s: z}, l: [{p: TCP}, {p: UDP}], maybe: null}}")
    );
}

#[test]
fn faulty_schemas_are_refused() {
    for (schema, part) in [
        (
            "{type: array, items: {type: string}}",
            "must be object at the root",
        ),
        (
            "{type: object, properties: {a: {}}}",
            "properties[a].type: Required value: must not be empty",
        ),
        (
            "{type: object, properties: {a: {type: text}}}",
            r#"properties[a].type: Unsupported value: "text""#,
        ),
        (
            "{type: object, properties: {a: {type: array}}}",
            "properties[a].items: Required value",
        ),
        (
            "{type: object, properties: {a: {$ref: '#/x'}}}",
            "$ref is not supported",
        ),
        (
            "{type: object, properties: {a: {type: string, pattern: '('}}}",
            "must be a valid regular expression",
        ),
        (
            "{type: object, properties: {a: {type: integer, default: x}}}",
            "properties[a].default: Invalid value",
        ),
        (
            "{type: object, properties: {a: {type: object, properties: {b: {type: string}}, additionalProperties: {type: string}}}}",
            "mutual exclusive",
        ),
        (
            "{type: object, properties: {a: {type: array, x-kubernetes-list-type: map, items: {type: object}}}}",
            "x-kubernetes-list-map-keys: Required value",
        ),
    ] {
        let error = Structural::compile(&yaml(schema)).unwrap_err();
        assert!(error.contains(part), "{schema}\n{error}");
    }
    let mut deep = json!({"type": "object"});
    for _ in 0..70 {
        deep = json!({"type": "object", "properties": {"a": deep}});
    }
    assert!(
        Structural::compile(&deep)
            .unwrap_err()
            .contains("64 levels")
    );
}

#[test]
fn cel_rules() {
    let schema = "{type: object, properties: {min: {type: integer}, max: {type: integer}, rate: {type: number},
        name-x: {type: string}, namespace: {type: string}, a_b: {type: string},
        list: {type: array, items: {type: object, properties: {n: {type: integer, x-kubernetes-validations:
          [{rule: self > 0, message: must be positive}]}}}},
        map: {type: object, additionalProperties: {type: string, x-kubernetes-validations: [{rule: 'self != \"x\"'}]}},
        until: {type: string, format: duration}},
        x-kubernetes-validations: [
          {rule: '!has(self.min) || !has(self.max) || self.min <= self.max',
           messageExpression: '\"min \" + string(self.min) + \" is above \" + string(self.max)', fieldPath: .min},
          {rule: '!has(self.rate) || self.rate <= 1.0', message: rate too high, reason: FieldValueForbidden},
          {rule: '!has(self.name__dash__x) || self.name__dash__x.startsWith(\"a\")', message: bad name},
          {rule: '!has(self.__namespace__) || self.__namespace__.size() < 3', message: bad namespace},
          {rule: '!has(self.a_b) || self.a_b == \"ok\"', message: bad a_b},
          {rule: '!has(self.list) || self.list.all(one, !has(one.n) || one.n < 10)', message: below ten},
          {rule: '!has(self.until) || self.until < duration(\"1h\")', message: under an hour}]}";
    assert_eq!(
        check(
            schema,
            "{min: 1, max: 2, rate: 1, name-x: a, namespace: ab, a_b: ok, list: [{n: 1}], map: {k: v}, until: 5m}"
        ),
        ""
    );
    for (value, wanted) in [
        (
            "{min: 3, max: 2}",
            r#"spec.min: Invalid value: "object": min 3 is above 2"#,
        ),
        ("{rate: 2}", "spec: Forbidden: rate too high"),
        ("{name-x: b}", r#"spec: Invalid value: "object": bad name"#),
        (
            "{namespace: abc}",
            r#"spec: Invalid value: "object": bad namespace"#,
        ),
        ("{a_b: x}", r#"spec: Invalid value: "object": bad a_b"#),
        (
            "{list: [{n: 1}, {n: 0}]}",
            r#"spec.list[1].n: Invalid value: "integer": must be positive"#,
        ),
        (
            "{list: [{n: 11}]}",
            r#"spec: Invalid value: "object": below ten"#,
        ),
        (
            "{map: {k: x}}",
            r#"spec.map[k]: Invalid value: "string": failed rule: self != "x""#,
        ),
        (
            "{until: 2h}",
            r#"spec: Invalid value: "object": under an hour"#,
        ),
    ] {
        assert_eq!(check(schema, value), wanted, "{value}");
    }
}

#[test]
fn transition_rules_and_ratcheting() {
    let schema = "{type: object, properties: {fixed: {type: string, x-kubernetes-validations:
        [{rule: self == oldSelf, message: immutable}]}, n: {type: integer, x-kubernetes-validations:
        [{rule: self < 5, message: below five}]},
        once: {type: string, x-kubernetes-validations: [{rule: '!oldSelf.hasValue() || oldSelf.value() == self',
        optionalOldSelf: true, message: set once}]}}}";
    assert_eq!(check(schema, "{fixed: a, once: x}"), "");
    assert_eq!(change(schema, "{fixed: a}", "{fixed: a}"), "");
    assert_eq!(
        change(schema, "{fixed: a}", "{fixed: b}"),
        r#"spec.fixed: Invalid value: "string": immutable"#
    );
    assert_eq!(change(schema, "{}", "{fixed: b}"), "");
    assert_eq!(
        change(schema, "{once: a}", "{once: b}"),
        r#"spec.once: Invalid value: "string": set once"#
    );
    assert_eq!(change(schema, "{n: 9}", "{n: 9, fixed: a}"), "");
    assert_eq!(
        change(schema, "{n: 9}", "{n: 8}"),
        r#"spec.n: Invalid value: "integer": below five"#
    );
}

#[test]
fn rules_that_do_not_compile() {
    for (rule, part) in [
        ("{rule: 'self.a ==='}", "compilation failed"),
        ("{rule: ''}", "rule is not specified"),
        ("{rule: 'self.b == 1'}", "undefined field 'b'"),
        ("{rule: 'self.l.all(x, x.zz == 1)'}", "undefined field 'zz'"),
        ("{rule: 'other == 1'}", "undeclared reference to 'other'"),
        (
            "{rule: 'self.a.made_up()'}",
            "undeclared reference to 'made_up'",
        ),
        ("{rule: 'X{a: 1} == self'}", "compilation failed"),
        (
            "{rule: 'true', messageExpression: 'nope'}",
            "messageExpression: Invalid value",
        ),
        (
            "{rule: 'true', reason: Sad}",
            r#"reason: Unsupported value: "Sad""#,
        ),
    ] {
        let schema = format!(
            "{{type: object, properties: {{spec: {{type: object, properties: {{a: {{type: string}}, l: {{type: array,
            items: {{type: object, properties: {{n: {{type: integer}}}}}}}}}}, x-kubernetes-validations: [{rule}]}}}}}}"
        );
        let error = Structural::compile(&yaml(&schema)).unwrap_err();
        assert!(
            error.contains(part) && error.contains("x-kubernetes-validations[0]"),
            "{rule}\n{error}"
        );
    }
}

#[test]
fn rules_that_fail_or_never_end() {
    let schema = "{type: object, properties: {l: {type: array, items: {type: integer}}},
        x-kubernetes-validations: [{rule: 'self.l.all(a, self.l.all(b, self.l.all(c, self.l.all(d, true))))'}]}";
    let long = format!("{{l: [{}]}}", vec!["1"; 200].join(","));
    let started = std::time::Instant::now();
    let errors = check(schema, &long);
    assert!(errors.contains("running out of cost budget"), "{errors}");
    assert!(
        started.elapsed() < std::time::Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(check(schema, "{l: [1, 2]}"), "");
    assert_eq!(
        check(schema, "{}"),
        r#"spec: Invalid value: "object": no such key: l evaluating rule: failed rule: self.l.all(a, self.l.all(b, self.l.all(c, self.l.all(d, true))))"#
    );
}

#[test]
fn lists_out_of_nothing_are_bounded() {
    let schema = "{type: object, properties: {n: {type: integer}},
        x-kubernetes-validations: [{rule: lists.range(self.n).size() == self.n}]}";
    assert_eq!(check(schema, "{n: 1000}"), "");
    assert!(check(schema, "{n: 1000000000000}").contains("between 0 and 100000"));
}

#[test]
fn a_compiled_schema_is_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&compile("{type: object}"));
}

#[test]
fn our_own_definitions_take_our_own_samples() {
    let mut schemas = std::collections::HashMap::new();
    for definition in lateen_api::crd::crds() {
        let spec = &definition["spec"];
        for version in spec["versions"].as_array().unwrap() {
            let name = (
                spec["names"]["kind"].clone(),
                format!("{}/{}", text(&spec["group"]), text(&version["name"])),
            );
            let schema = Structural::compile(&version["schema"]["openAPIV3Schema"]);
            schemas.insert(
                name,
                schema.unwrap_or_else(|why| panic!("{}: {why}", definition["metadata"]["name"])),
            );
        }
    }
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../samples/bookinfo/networking"
    );
    let mut checked = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        for document in std::fs::read_to_string(&path).unwrap().split("\n---") {
            let object: Value = serde_saphyr::from_str(document).unwrap_or_default();
            let Some(schema) = schemas.get(&(
                object["kind"].clone(),
                text(&object["apiVersion"]).to_owned(),
            )) else {
                continue;
            };
            assert_eq!(
                schema.unknown_fields(&object),
                Vec::<String>::new(),
                "{}",
                path.display()
            );
            assert_eq!(
                schema.validate(&object, None),
                Vec::new(),
                "{}",
                path.display()
            );
            checked += 1;
        }
    }
    assert!(checked > 3, "only {checked} samples were found in {folder}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
