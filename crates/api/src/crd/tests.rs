//! Cases of `crd`: text in, observable result out.

use super::*;

/// Every schema in `schema`, with its path.
fn walk(schema: &Value, path: &str, see: &mut impl FnMut(&str, &Value)) {
    see(path, schema);
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        walk(below, &format!("{path}.{name}"), see);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = schema.get(key) {
            walk(below, &format!("{path}.{key}"), see);
        }
    }
}

/// Kubernetes refuses what is not structural: each schema has one type, arrays say what they hold.
#[test]
fn schemas_are_structural_and_documented() {
    let allowed = [
        "type",
        "description",
        "properties",
        "required",
        "items",
        "additionalProperties",
        "enum",
        "format",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "maxProperties",
        "pattern",
        "x-kubernetes-validations",
        "x-kubernetes-preserve-unknown-fields",
    ];
    for crd in crds() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap_or_default();
        let spec = spec_schema(kind).expect("typed");
        walk(spec, kind, &mut |path, schema| {
            assert!(
                schema["type"].is_string(),
                "{path} has no single type: {schema}"
            );
            for key in schema.as_object().expect("a schema is a mapping").keys() {
                assert!(
                    allowed.contains(&key.as_str()),
                    "{path} has {key}: {schema}"
                );
            }
            if schema["type"] == "array" {
                assert!(
                    schema.get("items").is_some(),
                    "{path} does not say what it holds"
                );
            }
            let field = path.rsplit('.').next().unwrap_or_default();
            if field != "items" && field != "additionalProperties" {
                assert!(
                    schema["description"].is_string(),
                    "{path} has no description"
                );
            }
        });
    }
}

#[test]
fn every_version_is_served_and_v1_is_stored() {
    let crds = crds();
    assert_eq!(crds.len(), 10);
    let istio = |crd: &Value| crd["spec"]["group"] != crate::kinds::LATEEN;
    for crd in crds.into_iter().filter(istio) {
        let versions = crd["spec"]["versions"].as_array().expect("versions");
        let said = versions
            .iter()
            .map(|v| (v["name"].as_str().unwrap_or_default(), v["storage"] == true))
            .collect::<Vec<_>>();
        let all = [("v1", true), ("v1beta1", false), ("v1alpha3", false)];
        let is_security = crd["spec"]["group"] == "security.istio.io";
        assert_eq!(said, all[..if is_security { 2 } else { 3 }]);
    }
}

#[test]
fn yaml_of_all_crds_reads_back() {
    let documents = crate::yaml::parse("crds", &crds_yaml());
    let values = documents.into_iter().map(|d| d.value).collect::<Vec<_>>();
    assert_eq!(values, crds());
}

#[test]
fn field_names_are_istios() {
    for (kind, pointer) in [
        (
            "DestinationRule",
            "/properties/trafficPolicy/properties/outlierDetection/properties/consecutive5xxErrors",
        ),
        (
            "DestinationRule",
            "/properties/trafficPolicy/properties/connectionPool/properties/http/properties/http1MaxPendingRequests",
        ),
        (
            "DestinationRule",
            "/properties/trafficPolicy/properties/connectionPool/properties/http/properties/http2KeepAlive",
        ),
        (
            "DestinationRule",
            "/properties/trafficPolicy/properties/connectionPool/properties/http/properties/h2UpgradePolicy",
        ),
        (
            "DestinationRule",
            "/properties/workloadSelector/properties/matchLabels",
        ),
        (
            "VirtualService",
            "/properties/http/items/properties/match/items/properties/ignoreUriCase",
        ),
        (
            "VirtualService",
            "/properties/http/items/properties/fault/properties/abort/properties/http2Error",
        ),
        (
            "VirtualService",
            "/properties/tls/items/properties/match/items/properties/sniHosts",
        ),
        (
            "Gateway",
            "/properties/servers/items/properties/tls/properties/verifyCertificateSpki",
        ),
        (
            "ServiceEntry",
            "/properties/workloadSelector/properties/labels",
        ),
    ] {
        let schema = spec_schema(kind).expect("typed");
        assert!(schema.pointer(pointer).is_some(), "{kind} lacks {pointer}");
    }
}

/// Evaluates the rules of `kind`'s schema on a spec; `want` are words of the refusals.
fn check_rules(kind: &str, spec: Value, want: &[&str]) {
    let schema = spec_schema(kind).expect("typed");
    let said = match kube_cel::Validator::new().validate(schema, &spec, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec(),
    };
    assert_eq!(said.len(), want.len(), "{spec}: {said:?}");
    for (error, want) in said.iter().zip(want) {
        assert!(error.message.contains(want), "{spec}: {error:?}");
    }
}

#[test]
fn rules_in_the_schema() {
    let endpoint = json!({ "address": "10.0.0.1" });
    check_rules("ServiceEntry", json!({ "hosts": ["a"] }), &[]);
    check_rules(
        "ServiceEntry",
        json!({ "hosts": ["a"], "resolution": "STATIC", "endpoints": [endpoint], "addresses": ["10.0.0.0/8"] }),
        &[],
    );
    check_rules(
        "ServiceEntry",
        json!({ "hosts": ["a"], "resolution": "STATIC", "endpoints": [endpoint], "workloadSelector": {} }),
        &["workloadSelector and endpoints"],
    );
    check_rules(
        "ServiceEntry",
        json!({ "hosts": ["a"], "endpoints": [endpoint] }),
        &["NONE cannot"],
    );
    check_rules(
        "ServiceEntry",
        json!({ "hosts": ["a"], "resolution": "DNS_ROUND_ROBIN", "endpoints": [endpoint, endpoint], "addresses": ["10.0.0.0/8"] }),
        &["one endpoint at most", "ranges"],
    );
    let selector = json!({ "matchLabels": { "app": "a" } });
    let target = json!({ "kind": "Service", "name": "a" });
    for kind in ["AuthorizationPolicy", "RequestAuthentication"] {
        check_rules(kind, json!({}), &[]);
        check_rules(kind, json!({ "selector": selector }), &[]);
        check_rules(
            kind,
            json!({ "selector": selector, "targetRefs": [target] }),
            &["exclude each other"],
        );
    }
    let ports = json!({ "8080": { "mode": "STRICT" } });
    check_rules(
        "PeerAuthentication",
        json!({ "selector": selector, "portLevelMtls": ports }),
        &[],
    );
    check_rules(
        "PeerAuthentication",
        json!({ "portLevelMtls": ports }),
        &["needs a selector"],
    );
    check_rules("WorkloadEntry", json!({ "address": "a" }), &[]);
    check_rules("WorkloadEntry", json!({ "network": "n" }), &[]);
    check_rules("WorkloadEntry", json!({}), &["address is missing"]);
}
