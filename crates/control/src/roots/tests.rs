//! What is written where, event by event.

use super::*;

fn namespace(name: &str, ends: bool) -> Namespace {
    let mut metadata = json!({ "name": name });
    if ends {
        metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    serde_json::from_value(json!({ "metadata": metadata })).expect("a namespace")
}

fn map(which: Which, namespace: &str, text: &str) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": { "name": which.name(), "namespace": namespace },
        "data": { (which.key()): text },
    }))
    .expect("a config map")
}

fn trusted(roots: &str, crl: &str) -> Trusted {
    Trusted {
        roots: roots.into(),
        crl: crl.into(),
    }
}

/// Books of a cluster with the namespaces `a` and `b` and no ConfigMap, in which the roots are `R`.
fn listed() -> Books {
    let mut books = Books {
        trusted: trusted("R", ""),
        ..Books::default()
    };
    for name in ["a", "b", "kube-system"] {
        books.on_namespace(Event::InitApply(namespace(name, false)));
    }
    for which in Which::BOTH {
        books.on_map(which, Event::InitDone);
    }
    books
}

/// Everything that is to be done now, as text; it is done at once, and the watch tells it.
fn work(books: &mut Books) -> Vec<String> {
    let mut all = Vec::new();
    while let Some((which, namespace, act)) = books.next() {
        all.push(format!("{namespace} {which:?} {act:?}"));
        match act {
            Act::Create(text) | Act::Change(text) => {
                books.on_map(which, Event::Apply(map(which, &namespace, &text)));
            }
            Act::Delete => books.on_map(which, Event::Delete(map(which, &namespace, ""))),
        }
        books.done(which, namespace, Ok(()));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn every_namespace_gets_the_roots_also_a_new_one() {
    let mut books = listed();
    let want = ["a Roots Create(\"R\")", "b Roots Create(\"R\")"];
    assert_eq!(work(&mut books), want);
    books.on_namespace(Event::Apply(namespace("c", false)));
    assert_eq!(work(&mut books), ["c Roots Create(\"R\")"]);
    books.on_namespace(Event::Apply(namespace("d", true)));
    assert!(work(&mut books).is_empty(), "it is being deleted");
}

#[tokio::test(start_paused = true)]
async fn what_was_edited_or_deleted_is_mended() {
    let mut books = listed();
    work(&mut books);
    books.on_map(Which::Roots, Event::Apply(map(Which::Roots, "a", "forged")));
    books.on_map(Which::Roots, Event::Delete(map(Which::Roots, "b", "R")));
    assert!(work(&mut books).is_empty(), "another replica may do it");
    tokio::time::advance(CALM).await;
    let want = ["a Roots Change(\"R\")", "b Roots Create(\"R\")"];
    assert_eq!(work(&mut books), want);
}

#[tokio::test(start_paused = true)]
async fn new_roots_go_everywhere_and_revocation_lists_come_and_go() {
    let mut books = listed();
    work(&mut books);
    books.trusted = trusted("R+S", "L");
    books.look_at_all();
    let want = [
        "a Roots Change(\"R+S\")",
        "b Roots Change(\"R+S\")",
        "a Crl Create(\"L\")",
        "b Crl Create(\"L\")",
    ];
    assert_eq!(work(&mut books), want);
    books.trusted = trusted("R+S", "");
    books.look_at_all();
    assert_eq!(work(&mut books), ["a Crl Delete", "b Crl Delete"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_roots_and_cluster_are_known_and_failures_are_repeated() {
    let mut books = listed();
    books.listed.clear();
    assert!(work(&mut books).is_empty());
    books.on_map(Which::Roots, Event::InitDone);
    books.trusted = Trusted::default();
    assert!(work(&mut books).is_empty(), "no roots yet");
    books.trusted = trusted("R", "");
    books.look_at_all();
    let (which, name, _) = books.next().expect("something to do");
    books.done(
        which,
        name.clone(),
        Err(Fault::Other("no route to host".to_owned())),
    );
    assert_eq!(work(&mut books).len(), 1, "the other namespace");
    tokio::time::advance(AGAIN).await;
    assert_eq!(work(&mut books), [format!("{name} Roots Create(\"R\")")]);
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_missing_is_no_reason_to_hurry() {
    let mut books = listed();
    let fault = || Fault::Forbidden("configmaps is forbidden: User cannot create".to_owned());
    while let Some((which, namespace, _)) = books.next() {
        books.done(which, namespace, Err(fault()));
    }
    let wake = books.wake().expect("tried again");
    assert_eq!(wake - Instant::now(), FORBIDDEN);
    assert!(!is_ending("configmaps is forbidden: User cannot create"));
    assert!(is_ending(
        "unable to create new content in namespace shop because it is being terminated"
    ));
}
