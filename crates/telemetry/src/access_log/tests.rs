//! Format and record in, line out.

use super::*;
use std::time::{Duration, UNIX_EPOCH};

fn record() -> Record {
    let mut record = Record::begin();
    record.started = UNIX_EPOCH + Duration::from_millis(1_606_339_578_409);
    record.duration = Duration::from_micros(4_900);
    record.protocol = Some("HTTP/1.1");
    record.method = Some(http::Method::GET);
    record.path = Some("/status/418?x=1".to_owned());
    record.authority = Some("httpbin:8000".into());
    record.code = 418;
    record.details = "via_upstream".into();
    record.sent = 135;
    record.upstream_host = "10.44.1.23:80".parse().ok();
    record.cluster = "outbound|8000||httpbin.foo.svc.cluster.local".into();
    record.upstream_local = "10.44.1.27:37652".parse().ok();
    record.local = "10.0.45.184:8000".parse().ok();
    record.remote = "10.44.1.27:46520".parse().ok();
    record.route = "default".into();
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", HeaderValue::from_static("curl/7.73.0-DEV"));
    headers.insert("x-request-id", HeaderValue::from_static("84961386"));
    record.request_headers = Format::default().capture_request(&headers);
    headers.insert(
        "x-envoy-upstream-service-time",
        HeaderValue::from_static("4"),
    );
    record.response_headers = Format::default().capture_response(&headers);
    record
}

fn check(format: &str, want: &str) {
    let mut out = Vec::new();
    Format::parse(format).unwrap().write(&record(), &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), want);
}

#[test]
fn the_default_line_is_istios() {
    check(
        DEFAULT,
        "[2020-11-25T21:26:18.409Z] \"GET /status/418?x=1 HTTP/1.1\" 418 - via_upstream - \"-\" 0 135 4 4 \"-\" \
         \"curl/7.73.0-DEV\" \"84961386\" \"httpbin:8000\" \"10.44.1.23:80\" \
         outbound|8000||httpbin.foo.svc.cluster.local 10.44.1.27:37652 10.0.45.184:8000 10.44.1.27:46520 - default\n",
    );
}

#[test]
fn operators() {
    check("%REQ(:METHOD):2%", "GE");
    check("100%% %RESPONSE_CODE%", "100% 418");
    check("%START_TIME(%Y/%m/%d)%", "2020/11/25");
    check("%START_TIME(%s.%3f)%", "1606339578.409");
    check("%REQ_WITHOUT_QUERY(:PATH)%", "/status/418");
    check("%REQ(X-NONE?USER-AGENT):4%", "curl");
    check(
        "%RESP(X-NONE)%|%GRPC_STATUS%|%TRAILING%"
            .replace("|%TRAILING%", "")
            .as_str(),
        "-|-",
    );
    check(
        "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT%",
        "10.44.1.27 8000",
    );
}

#[test]
fn json_keeps_numbers() {
    check(
        r#"{"code":"%RESPONSE_CODE%","both":"%REQ(:METHOD)% %DURATION%","none":"%RESPONSE_FLAGS%"}"#,
        "{\"both\":\"GET 4\",\"code\":418,\"none\":null}\n",
    );
    Format::parse(DEFAULT_JSON).unwrap();
}

#[test]
fn wrong_formats_say_what_is_wrong() {
    for (format, want) in [
        ("%NOPE%", "operator %NOPE% is not known"),
        ("a % b", "without its partner"),
        ("%REQ%", "wrong argument"),
        ("%REQ(a b)%", "wrong argument"),
        ("{\"a\":1}", "no JSON object of strings"),
    ] {
        let error = Format::parse(format).unwrap_err().to_string();
        assert!(error.contains(want), "{format}: {error}");
    }
}

#[test]
fn a_header_cannot_break_the_line() {
    let mut record = record();
    record.path = Some("/a\nb".to_owned());
    let mut out = Vec::new();
    Format::parse("%REQ(:PATH)%")
        .unwrap()
        .write(&record, &mut out);
    assert_eq!(out, b"/a b");
}
