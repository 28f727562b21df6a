//! Takeovers step by step, on a clock of their own.

use super::*;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Mesh {
    rotation: Rotation<&'static str>,
    start: Instant,
    /// Seconds since the start.
    at: u64,
}

impl Mesh {
    fn new(record: Record) -> Self {
        Self {
            rotation: Rotation::restore(record, DAY, Timing::default()),
            start: Instant::now(),
            at: 0,
        }
    }

    fn clock(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.at)
    }

    fn offer(&mut self, signer: &'static str) {
        let now = self.start + Duration::from_secs(self.at);
        let clock = self.clock();
        self.rotation.offer(signer, vec![root(signer)], now, clock);
    }

    /// The mesh at this second: who signs, and what is trusted.
    fn at(&mut self, second: u64, known: bool) -> String {
        self.at = second;
        let now = self.start + Duration::from_secs(second);
        let clock = self.clock();
        self.rotation.advance(known, now, clock);
        self.show()
    }

    fn show(&self) -> String {
        let trusted: Vec<_> = self.rotation.bundle().iter().map(name).collect();
        let signer = self.rotation.signer().unwrap_or(&"nobody");
        format!("{signer} signs, trusted: {}", trusted.join(" "))
    }
}

fn root(name: &str) -> Root {
    Root::of(name.as_bytes())
}

fn name(root: &Root) -> String {
    let der = CertificateDer::from_pem_slice(root.pem().as_bytes()).expect("PEM");
    String::from_utf8(der.to_vec()).expect("a name")
}

#[tokio::test(start_paused = true)]
async fn a_new_ca_signs_once_every_proxy_trusts_it() {
    let mut mesh = Mesh::new(Record::default());
    mesh.offer("a");
    assert_eq!(mesh.at(0, true), "a signs, trusted: a");
    mesh.offer("b");
    assert_eq!(mesh.at(1, true), "a signs, trusted: a b");
    assert_eq!(mesh.at(10, false), "a signs, trusted: a b");
    assert_eq!(mesh.at(11, true), "b signs, trusted: b a");
    let end = 11 + DAY.as_secs();
    assert_eq!(mesh.at(end - 1, true), "b signs, trusted: b a");
    assert_eq!(mesh.at(end, true), "b signs, trusted: b");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_never_answers_is_not_waited_for_for_ever() {
    let mut mesh = Mesh::new(Record::default());
    mesh.offer("a");
    mesh.offer("b");
    assert_eq!(mesh.at(59, false), "a signs, trusted: a b");
    assert_eq!(mesh.at(60, false), "b signs, trusted: b a");
}

#[tokio::test(start_paused = true)]
async fn two_takeovers_in_a_row_keep_what_signed_and_drop_what_did_not() {
    let mut mesh = Mesh::new(Record::default());
    mesh.offer("a");
    mesh.offer("b");
    assert_eq!(mesh.at(2, true), "a signs, trusted: a b");
    mesh.offer("c");
    assert_eq!(mesh.at(6, true), "a signs, trusted: a c", "b never signed");
    assert_eq!(mesh.at(7, true), "c signs, trusted: c a");
    mesh.offer("d");
    assert_eq!(mesh.at(12, true), "d signs, trusted: d a c");
    mesh.offer("a");
    assert_eq!(mesh.show(), "a signs, trusted: a c d", "a is trusted still");
}

#[tokio::test(start_paused = true)]
async fn a_restart_forgets_no_root() {
    let mut mesh = Mesh::new(Record::default());
    mesh.offer("a");
    mesh.offer("b");
    mesh.at(6, true);
    let text = serde_json::to_string(&mesh.rotation.record()).expect("JSON");
    let mut mesh = Mesh::new(serde_json::from_str(&text).expect("it reads back"));
    mesh.offer("b");
    assert_eq!(mesh.at(7, true), "b signs, trusted: b a");

    // The CA was replaced while nobody looked: its key is gone, so nobody signs until proxies know the new one.
    let mut mesh = Mesh::new(mesh.rotation.record());
    mesh.offer("c");
    assert_eq!(mesh.at(4, true), "nobody signs, trusted: b c a");
    assert_eq!(mesh.at(5, true), "c signs, trusted: c a b");
}

#[tokio::test(start_paused = true)]
async fn a_root_is_kept_for_the_longest_certificate_it_signed() {
    let mut mesh = Mesh::new(Record::default());
    mesh.offer("a");
    assert!(!mesh.rotation.granted(DAY));
    assert!(mesh.rotation.granted(10 * DAY));
    mesh.offer("b");
    mesh.at(5, true);
    assert_eq!(mesh.at(9 * DAY.as_secs(), true), "b signs, trusted: b a");
    assert_eq!(mesh.at(11 * DAY.as_secs(), true), "b signs, trusted: b");
}

#[test]
fn roots_are_equal_whatever_their_spelling() {
    let one = root("certificate one");
    let noisy = format!(
        "# a comment\n{}\n{}",
        one.pem().replace('\n', "\r\n"),
        one.pem()
    );
    assert_eq!(Root::all_of(&noisy), [one]);
    assert_eq!(Root::all_of("nothing"), []);
}
