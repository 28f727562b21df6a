//! Outcomes in, who is out.

use super::*;

/// A cluster of endpoints `10.0.0.N:80` and a clock.
struct Case {
    detector: Detector,
    settings: OutlierDetection,
    total: usize,
    now: Instant,
}

impl Case {
    fn new(total: usize, settings: OutlierDetection) -> Self {
        let now = Instant::now();
        let mut detector = Detector::default();
        detector.ejected(&settings, now);
        Self {
            detector,
            settings,
            total,
            now,
        }
    }

    fn at(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 80))
    }

    /// Notes the same outcome some times; tells whether one of them put the endpoint out.
    fn note(&mut self, host: u8, outcome: Outcome, times: u32) -> bool {
        let seen = (Self::at(host), outcome);
        let mut out = false;
        for _ in 0..times {
            out |= self
                .detector
                .note(&self.settings, seen, self.total, self.now);
        }
        out
    }

    fn pass(&mut self, seconds: u64) -> Vec<u8> {
        self.now += Duration::from_secs(seconds);
        let out = self.detector.ejected(&self.settings, self.now);
        let mut out: Vec<_> = (0..=255)
            .filter(|host| out.contains(&Self::at(*host)))
            .collect();
        out.sort_unstable();
        out
    }
}

fn usual() -> OutlierDetection {
    OutlierDetection::default()
}

#[test]
fn five_errors_in_a_row() {
    let mut case = Case::new(20, usual());
    assert!(!case.note(1, Outcome::Answer(500), 4));
    assert!(
        !case.note(1, Outcome::Answer(404), 1),
        "anything else begins anew"
    );
    assert!(!case.note(1, Outcome::Answer(503), 4));
    assert!(
        case.note(1, Outcome::Unreachable, 1),
        "failing to connect counts as 503"
    );
    assert_eq!(case.pass(0), [1]);
}

#[test]
fn none_for_zero_and_only_the_codes_that_are_listed() {
    let off = OutlierDetection {
        consecutive_5xx: 0,
        ..usual()
    };
    assert!(!Case::new(20, off).note(1, Outcome::Answer(500), 100));
    let codes = OutlierDetection {
        error_codes: vec![429],
        ..usual()
    };
    assert!(!Case::new(20, codes.clone()).note(1, Outcome::Answer(500), 100));
    assert!(Case::new(20, codes).note(1, Outcome::Answer(429), 5));
}

#[test]
fn gateway_errors_have_a_count_of_their_own() {
    let settings = OutlierDetection {
        consecutive_5xx: 0,
        consecutive_gateway: 3,
        ..usual()
    };
    let mut case = Case::new(20, settings);
    assert!(!case.note(1, Outcome::Answer(502), 2));
    assert!(!case.note(1, Outcome::Answer(500), 1), "500 is none");
    assert!(!case.note(1, Outcome::Answer(503), 2));
    assert!(case.note(1, Outcome::Late, 1), "lateness counts as 504");
}

#[test]
fn local_errors_apart() {
    let settings = OutlierDetection {
        consecutive_local: Some(2),
        ..usual()
    };
    let mut case = Case::new(20, settings);
    assert!(!case.note(1, Outcome::Answer(500), 4));
    assert!(!case.note(1, Outcome::Unreachable, 1));
    assert!(case.note(1, Outcome::Late, 1), "two of them");
    assert!(!case.note(2, Outcome::Unreachable, 1));
    assert!(!case.note(2, Outcome::Connected, 1));
    assert!(!case.note(2, Outcome::Unreachable, 1));
}

#[test]
fn an_ejection_lasts_longer_each_time_and_is_forgotten_in_the_end() {
    let mut case = Case::new(20, usual());
    assert!(case.note(1, Outcome::Answer(500), 5));
    assert_eq!(case.pass(29), [1]);
    assert_eq!(
        case.pass(1),
        Vec::<u8>::new(),
        "30 s, at the end of the third interval"
    );
    assert!(case.note(1, Outcome::Answer(500), 5));
    assert_eq!(case.pass(59), [1]);
    assert_eq!(case.pass(1), Vec::<u8>::new(), "60 s the second time");
    assert_eq!(case.pass(20), Vec::<u8>::new(), "two good intervals");
    assert!(case.note(1, Outcome::Answer(500), 5));
    assert_eq!(case.pass(30), Vec::<u8>::new(), "30 s again");
}

#[test]
fn no_ejection_is_longer_than_five_minutes_or_the_base() {
    let base_ejection_time = Duration::from_secs(200);
    let mut case = Case::new(
        20,
        OutlierDetection {
            base_ejection_time,
            ..usual()
        },
    );
    for seconds in [200, 300, 300] {
        assert!(case.note(1, Outcome::Answer(500), 5));
        assert_eq!(case.pass(seconds - 1), [1]);
        assert_eq!(case.pass(1), Vec::<u8>::new());
    }
}

#[test]
fn one_may_always_be_out_and_more_by_share() {
    let mut case = Case::new(3, usual());
    assert!(case.note(1, Outcome::Answer(500), 5));
    assert!(!case.note(2, Outcome::Answer(500), 50));
    assert_eq!(case.pass(0), [1]);
    let half = OutlierDetection {
        max_ejection_percent: 50,
        ..usual()
    };
    let mut case = Case::new(4, half);
    assert!(case.note(1, Outcome::Answer(500), 5));
    assert!(case.note(2, Outcome::Answer(500), 5));
    assert!(!case.note(3, Outcome::Answer(500), 50));
    assert_eq!(case.pass(0), [1, 2]);
}

#[test]
fn who_leaves_the_cluster_is_forgotten() {
    let mut case = Case::new(2, usual());
    assert!(case.note(1, Outcome::Answer(500), 5));
    case.detector.keep(&[]);
    assert_eq!(case.pass(0), Vec::<u8>::new());
    assert!(
        case.note(2, Outcome::Answer(500), 5),
        "the place is free again"
    );
}

#[test]
fn long_silence_costs_nothing() {
    let interval = Duration::from_millis(1);
    let mut case = Case::new(
        20,
        OutlierDetection {
            interval,
            ..usual()
        },
    );
    assert_eq!(case.pass(1 << 32), Vec::<u8>::new());
    assert!(case.note(1, Outcome::Answer(500), 5));
    assert_eq!(case.pass(30), Vec::<u8>::new());
}
