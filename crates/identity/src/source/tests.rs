//! Renewal under a paused clock, and the disk cache.

mod network;

use super::authority::{Answer, Ask, Question, Renewal};
use super::cache::Cache;
use super::*;
use crate::ca::{Authority, KeyKind, Request};
use crate::fixture::*;
use parking_lot::Mutex;

const MINUTE: Duration = Duration::from_secs(60);

/// A CA in memory.
struct Fake {
    authority: Mutex<Authority>,
    lifetime: Duration,
    /// Why it refuses; absent: it signs.
    down: Mutex<Option<&'static str>>,
    asked: Mutex<Vec<(SystemTime, Option<String>)>>,
    clock: Clock,
}

impl Fake {
    fn new(lifetime: Duration) -> Arc<Self> {
        Arc::new(Self {
            authority: Mutex::new(authority("cluster.local")),
            lifetime,
            down: Mutex::new(None),
            asked: Mutex::new(Vec::new()),
            clock: Clock::following_tokio(now()),
        })
    }

    fn ask(self: &Arc<Self>) -> Ask {
        let this = self.clone();
        Box::new(move |question| {
            let answer = this.answer(&question);
            Box::pin(async move { answer })
        })
    }

    fn answer(&self, question: &Question) -> Answer {
        let now = self.clock.now();
        self.asked.lock().push((now, question.token.clone()));
        if let Some(why) = *self.down.lock() {
            return Err(why.to_owned());
        }
        let ca = self.authority.lock();
        ca.sign(&question.csr, &sleep_id(), self.lifetime, now)
            .map_err(|error| error.to_string())
    }

    fn count(&self) -> usize {
        self.asked.lock().len()
    }
}

/// What a test of the loop may set.
#[derive(Default)]
struct Settings {
    token: Option<PathBuf>,
    cache: Option<PathBuf>,
    renew: Arc<Notify>,
    believed: Option<watch::Receiver<TrustBundles>>,
}

fn start(fake: &Arc<Fake>, settings: Settings) -> watch::Receiver<State> {
    let (sender, receiver) = watch::channel(State::default());
    let (ask, clock) = (fake.ask(), fake.clock);
    tokio::spawn(async move {
        let renewal = Renewal {
            ask,
            token: settings.token,
            lifetime: Duration::ZERO,
            key: KeyKind::EcdsaP256,
            cache: settings.cache.map(Cache::new),
            renew: settings.renew,
            believed: settings.believed,
            clock,
            state: &sender,
        };
        tokio::select! {
            () = renewal.run() => {}
            () = sender.closed() => {}
        }
    });
    receiver
}

async fn until(state: &mut watch::Receiver<State>, good: impl Fn(&State) -> bool) -> State {
    let found = state.wait_for(|state| good(state)).await;
    found.expect("the source runs").clone()
}

#[tokio::test(start_paused = true)]
async fn certificates_are_renewed_before_half_their_life_is_over() {
    let fake = Fake::new(24 * HOUR);
    let mut state = start(&fake, Settings::default());
    until(&mut state, |state| state.renewals == 5).await;
    let asked = fake.asked.lock().clone();
    assert_eq!(asked.len(), 5);
    for pair in asked.windows(2) {
        let between = pair[1].0.duration_since(pair[0].0).expect("later");
        let bounds = 9 * HOUR..=12 * HOUR + MINUTE;
        assert!(bounds.contains(&between), "{between:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_hours_does_no_harm() {
    let fake = Fake::new(24 * HOUR);
    let mut state = start(&fake, Settings::default());
    let first = until(&mut state, |state| state.renewals == 1).await;
    *fake.down.lock() = Some("the CA is down");
    let failing = until(&mut state, |state| state.failures > 300).await;
    let now = fake.clock.now();
    assert_eq!(failing.not_after(), first.not_after(), "the last one stays");
    assert_eq!(failing.last_error.as_deref(), Some("the CA is down"));
    assert_eq!(failing.alarm(now), None, "too early for an alarm");
    assert!(now < first.not_after().expect("a certificate"));
    let asked = fake.asked.lock().clone();
    let gap = asked
        .windows(2)
        .map(|pair| pair[1].0.duration_since(pair[0].0).expect("later"));
    assert!(
        gap.skip(1)
            .all(|gap| gap <= MINUTE + Duration::from_secs(1))
    );
    let expiring = until(&mut state, |state| state.failures > 800).await;
    let (alarm, text) = expiring.alarm(fake.clock.now()).expect("an alarm");
    assert_eq!(alarm, Alarm::Expiring);
    assert!(text.contains("the CA is down"), "{text}");
    *fake.down.lock() = None;
    let good = until(&mut state, |state| state.renewals == 2).await;
    assert_eq!((good.failures, good.last_error.clone()), (0, None));
    assert_eq!(good.alarm(fake.clock.now()), None);
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_is_told_and_kept() {
    let fake = Fake::new(HOUR);
    let mut state = start(&fake, Settings::default());
    until(&mut state, |state| state.renewals == 1).await;
    *fake.down.lock() = Some("the CA is down");
    let clock = fake.clock;
    let over = until(&mut state, |state| {
        matches!(state.alarm(clock.now()), Some((Alarm::Expired, _)))
    })
    .await;
    assert!(over.svid.is_some());
}

/// Certificates of five minutes outlive a CA that is away for three, whenever that begins.
#[tokio::test(start_paused = true)]
async fn five_minute_certificates_outlive_three_minutes_without_a_ca() {
    for begin in 0..12 {
        let fake = Fake::new(5 * MINUTE);
        let state = start(&fake, Settings::default());
        let check = |state: &watch::Receiver<State>| {
            let svid = state.borrow().svid.clone().expect("a certificate");
            assert!(!svid.remaining(fake.clock.now()).is_zero(), "begin {begin}");
        };
        tokio::time::sleep(MINUTE + begin * MINUTE / 2).await;
        *fake.down.lock() = Some("the CA is down");
        for _ in 0..180 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            check(&state);
        }
        *fake.down.lock() = None;
        for _ in 0..300 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            check(&state);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_appears_or_changes_is_used_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("istio-token");
    let fake = Fake::new(24 * HOUR);
    let mut state = start(
        &fake,
        Settings {
            token: Some(token.clone()),
            ..Settings::default()
        },
    );
    let waiting = until(&mut state, |state| state.failures > 12).await;
    assert!(
        waiting
            .last_error
            .expect("an error")
            .contains("no token in")
    );
    assert_eq!(fake.count(), 0, "nothing to ask with");
    *fake.down.lock() = Some("the token is not good");
    let before = fake.clock.now();
    std::fs::write(&token, "one\n").expect("written");
    let seen = until(&mut state, |state| {
        state.last_error.as_deref() == Some("the token is not good")
    })
    .await;
    let waited = fake.clock.now().duration_since(before).expect("later");
    assert!(waited <= Duration::from_secs(3), "{waited:?}");
    until(&mut state, |state| state.failures > seen.failures + 8).await;
    *fake.down.lock() = None;
    let before = fake.clock.now();
    std::fs::write(&token, "another\n").expect("written");
    until(&mut state, |state| state.renewals == 1).await;
    let waited = fake.clock.now().duration_since(before).expect("later");
    assert!(waited <= Duration::from_secs(3), "{waited:?}");
    let last = fake.asked.lock().last().cloned().expect("asked");
    assert_eq!(last.1.as_deref(), Some("another\n"));
    std::fs::remove_file(&token).expect("removed");
    until(&mut state, |state| state.renewals == 2).await;
    let last = fake.asked.lock().last().cloned().expect("asked");
    assert_eq!(last.1, None, "the certificate authenticates");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_roots_or_a_command_renews_at_once() {
    let fake = Fake::new(24 * HOUR);
    let renew = Arc::new(Notify::new());
    let (believed, receiver) = watch::channel(TrustBundles::default());
    let mut state = start(
        &fake,
        Settings {
            renew: renew.clone(),
            believed: Some(receiver),
            ..Settings::default()
        },
    );
    until(&mut state, |state| state.renewals == 1).await;
    let began = fake.clock.now();
    let quickly = || fake.clock.now().duration_since(began).expect("later") < MINUTE;
    renew.notify_one();
    until(&mut state, |state| state.renewals == 2).await;
    assert!(quickly());
    let old = fake.authority.lock().bundle("cluster.local");
    let of = |bundle| TrustBundles::of(&[Arc::new(bundle)], "cluster.local", &[]).0;
    believed.send_replace(of(old));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(fake.count(), 2, "still believed");
    *fake.authority.lock() = authority("cluster.local");
    let new = fake.authority.lock().bundle("cluster.local");
    believed.send_replace(of(new));
    until(&mut state, |state| state.renewals == 3).await;
    assert!(quickly());
    // A CA that lags behind is asked once, not in a circle.
    believed.send_replace(of(authority("cluster.local").bundle("cluster.local")));
    until(&mut state, |state| state.renewals == 4).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(fake.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_never_believed_is_no_load_for_the_authority() {
    let fake = Fake::new(24 * HOUR);
    let (believed, receiver) = watch::channel(TrustBundles::default());
    let mut state = start(
        &fake,
        Settings {
            believed: Some(receiver),
            ..Settings::default()
        },
    );
    let foreign = authority("cluster.local").bundle("cluster.local");
    let echo = async {
        loop {
            until(&mut state, |state| state.svid.is_some()).await;
            let foreign = [Arc::new(foreign.clone())];
            believed.send_replace(TrustBundles::of(&foreign, "cluster.local", &[]).0);
            state.changed().await.expect("the source runs");
            if fake.count() > 100 {
                return;
            }
        }
    };
    tokio::select! {
        () = echo => panic!("asked in a circle"),
        () = tokio::time::sleep(HOUR) => {}
    }
    assert!((5..40).contains(&fake.count()), "{}", fake.count());
}

#[tokio::test(start_paused = true)]
async fn a_kept_certificate_is_in_use_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("proxy");
    let cached = || Settings {
        cache: Some(path.clone()),
        ..Settings::default()
    };
    let fake = Fake::new(24 * HOUR);
    let mut state = start(&fake, cached());
    let first = until(&mut state, |state| state.renewals == 1).await;
    drop(state);
    let file = path.join("svid.pem");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&file).expect("kept").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    *fake.down.lock() = Some("the CA is down");
    let serial = |state: &State| state.svid.as_ref().map(|svid| svid.serial.clone());
    let mut state = start(&fake, cached());
    let kept = until(&mut state, |state| state.svid.is_some()).await;
    assert_eq!((serial(&kept), kept.failures), (serial(&first), 0));
    assert_eq!(kept.roots, fake.authority.lock().root_pem());
    assert_eq!(fake.count(), 1, "nobody was asked");
    drop(state);
    std::fs::write(&file, "rubbish").expect("written");
    let mut state = start(&fake, cached());
    let none = until(&mut state, |state| state.failures == 1).await;
    assert!(none.svid.is_none());
    *fake.down.lock() = None;
    until(&mut state, |state| state.renewals == 1).await;
    drop(state);
    let text = std::fs::read_to_string(&file).expect("kept again");
    assert!(Svid::from_pem(&text).is_ok());
    // One that is about to end is not worth loading.
    let short = Fake::new(MINUTE / 2);
    let mut state = start(&short, cached());
    until(&mut state, |state| state.renewals == 1).await;
    let loaded = Cache::new(path).load(short.clock.now());
    assert!(loaded.expect("readable").is_none());
}

#[tokio::test(start_paused = true)]
async fn answers_that_make_no_sense_are_refused() {
    let other = Request::new(KeyKind::EcdsaP256, None).expect("a request");
    let ca = authority("cluster.local");
    let chain = ca
        .sign(other.pem(), &sleep_id(), HOUR, now())
        .expect("signed");
    let answers: [(Vec<String>, &str); 4] = [
        (Vec::new(), "there is no certificate in it"),
        (vec!["rubbish".into()], "there is no certificate in it"),
        (chain.clone(), "does not belong to the certificate"),
        (vec![chain[0].clone(); 50], "more than any honest chain"),
    ];
    for (answer, part) in answers {
        let (sender, mut state) = watch::channel(State::default());
        tokio::spawn(async move {
            let renewal = Renewal {
                ask: Box::new(move |_| {
                    let answer = answer.clone();
                    Box::pin(async move { Ok(answer) })
                }),
                token: None,
                lifetime: HOUR,
                key: KeyKind::EcdsaP256,
                cache: None,
                renew: Arc::default(),
                believed: None,
                clock: Clock::following_tokio(now()),
                state: &sender,
            };
            renewal.run().await;
        });
        let failed = until(&mut state, |state| state.failures == 1).await;
        let why = failed.last_error.expect("an error");
        assert!(why.contains(part), "{why}");
        assert!(failed.svid.is_none());
    }
}
