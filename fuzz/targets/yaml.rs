//! Any text as a user's file: read, validated and translated without a panic, and what is read can be written and
//! read again.
#![no_main]

use lateen_translate::mesh::Mesh;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mesh = Mesh::default();
    for document in lateen_api::yaml::parse("fuzz.yaml", text) {
        let Some(object) = &document.object else {
            assert!(
                document.notices.iter().any(|n| n.is_error()),
                "nothing is dropped in silence"
            );
            continue;
        };
        let _ = lateen_api::validate::validate(object);
        let _ = lateen_translate::alone(object, &mesh);
        let written = lateen_api::yaml::render(&document.value);
        let again = lateen_api::yaml::parse("again.yaml", &written);
        assert!(
            again.iter().any(|d| d.value == document.value),
            "rendered and read again it is another document"
        );
    }
});
