//! RequestAuthentication: who a token says the caller is, and what becomes of tokens that are not good.

use super::{SLEEP, bookinfo_with_callers, call};
use crate::mesh::{Mesh, eventually};
use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::time::{SystemTime, UNIX_EPOCH};

const DETAILS: &str = "http://details.default:9080/details/0";

/// An issuer with one key.
struct Issuer {
    key: EcdsaKeyPair,
    kid: &'static str,
}

impl Issuer {
    fn new(kid: &'static str) -> Result<Self> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref())?;
        Ok(Self { key, kid })
    }

    fn jwks(&self) -> String {
        let point = self.key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        format!(
            r#"{{"keys":[{{"kty":"EC","crv":"P-256","alg":"ES256","kid":"{}","x":"{}","y":"{}"}}]}}"#,
            self.kid,
            URL_SAFE_NO_PAD.encode(x),
            URL_SAFE_NO_PAD.encode(y)
        )
    }

    fn token(&self, claims: &str) -> Result<String> {
        let head = format!(r#"{{"alg":"ES256","kid":"{}","typ":"JWT"}}"#, self.kid);
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(head),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes())?;
        Ok(format!(
            "{signed}.{}",
            URL_SAFE_NO_PAD.encode(signature.as_ref())
        ))
    }
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

fn with_token(mesh: &Mesh, token: &str) -> Result<super::Outcome> {
    let header = format!("Authorization: Bearer {token}");
    call(mesh, SLEEP, &["-H", &header, DETAILS])
}

#[test]
fn tokens_say_who_calls_and_bad_ones_are_refused() -> Result<()> {
    let mesh = bookinfo_with_callers()?;
    let issuer = Issuer::new("one")?;
    let jwks = issuer.jwks();
    mesh.apply(&format!(
        "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: details, namespace: default}}
spec:
  selector: {{matchLabels: {{app: details}}}}
  jwtRules:
    - issuer: testing@example.com
      audiences: [books]
      jwks: '{jwks}'
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: details-admins, namespace: default}}
spec:
  selector: {{matchLabels: {{app: details}}}}
  rules:
    - from: [{{source: {{requestPrincipals: ['testing@example.com/*']}}}}]
      when: [{{key: 'request.auth.claims[group]', values: [admins]}}]
"
    ))?;
    let claims = |issuer: &str, audience: &str, expires: u64, group: &str| {
        format!(
            r#"{{"iss":"{issuer}","sub":"ann","aud":"{audience}","exp":{expires},"group":["{group}"]}}"#
        )
    };
    let later = now()? + 600;
    let good = issuer.token(&claims("testing@example.com", "books", later, "admins"))?;
    eventually("a good token of the right group passes", 5, || {
        Ok(call(&mesh, SLEEP, &[DETAILS])?.status() == 403
            && with_token(&mesh, &good)?.status() == 200)
    })?;
    let other = Issuer::new("one")?;
    let cases = [
        (
            "another group",
            issuer.token(&claims("testing@example.com", "books", later, "guests"))?,
            (403, "RBAC: access denied"),
        ),
        (
            "expired",
            issuer.token(&claims(
                "testing@example.com",
                "books",
                now()? - 600,
                "admins",
            ))?,
            (401, "Jwt is expired"),
        ),
        (
            "another issuer",
            issuer.token(&claims("someone@example.com", "books", later, "admins"))?,
            (401, "Jwt issuer is not configured"),
        ),
        (
            "another audience",
            issuer.token(&claims("testing@example.com", "films", later, "admins"))?,
            (403, "Audiences in Jwt are not allowed"),
        ),
        (
            "another key",
            other.token(&claims("testing@example.com", "books", later, "admins"))?,
            (401, "Jwt verification fails"),
        ),
        (
            "garbage",
            "deadbeef".to_owned(),
            (
                401,
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            ),
        ),
    ];
    for (what, token, (status, body)) in cases {
        let outcome = with_token(&mesh, &token)?;
        println!("{what}: {outcome:?}");
        ensure!(
            outcome == super::Outcome::Answer(status, body.to_owned()),
            "{what}: {outcome:?}, wanted {status} {body}"
        );
    }
    keys_come_from_a_server(&mesh, &issuer)
}

/// `jwksUri`: fetched by the control plane; a server that is away lets nobody in; new keys are taken.
fn keys_come_from_a_server(mesh: &Mesh, issuer: &Issuer) -> Result<()> {
    mesh.apply(
        "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: details, namespace: default}
spec:
  selector: {matchLabels: {app: details}}
  jwtRules:
    - issuer: testing@example.com
      jwksUri: http://keys.legacy.svc.cluster.local:8000/keys.json
",
    )?;
    let claims = format!(
        r#"{{"iss":"testing@example.com","sub":"ann","exp":{},"group":["admins"]}}"#,
        now()? + 600
    );
    let token = issuer.token(&claims)?;
    eventually("without keys every token is refused", 10, || {
        Ok(with_token(mesh, &token)?.status() == 401)
    })?;
    let server = format!(
        "
apiVersion: v1
kind: ConfigMap
metadata: {{name: keys, namespace: legacy}}
data:
  keys.json: '{}'
---
apiVersion: v1
kind: Service
metadata: {{name: keys, namespace: legacy}}
spec:
  selector: {{app: keys}}
  ports: [{{name: http, port: 8000}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: keys, namespace: legacy, labels: {{app: keys}}}}
spec:
  containers:
    - name: keys
      image: curlimages/curl
      command: [python3, -m, http.server, '8000', --directory, /keys]
      ports: [{{containerPort: 8000}}]
      readinessProbe: {{tcpSocket: {{port: 8000}}, periodSeconds: 1}}
      volumeMounts: [{{name: keys, mountPath: /keys}}]
  volumes: [{{name: keys, configMap: {{name: keys}}}}]
",
        issuer.jwks()
    );
    mesh.apply(&server)?;
    eventually("the keys are fetched once they are there", 90, || {
        Ok(with_token(mesh, &token)?.status() == 200)
    })?;
    mesh.kubectl(&["delete", "pod", "keys", "-n", "legacy", "--now"])?;
    let outcome = with_token(mesh, &token).context("the last good keys stay")?;
    ensure!(outcome.status() == 200, "{outcome:?}");
    Ok(())
}

#[test]
fn keys_at_metadata_addresses_are_never_fetched() -> Result<()> {
    let mesh = Mesh::up(&[])?;
    mesh.apply(
        "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: metadata, namespace: default}
spec:
  jwtRules:
    - issuer: testing@example.com
      jwksUri: http://169.254.169.254/latest/keys
",
    )?;
    eventually("the refusal shows in the object's status", 15, || {
        let object = mesh.object(&["requestauthentication", "metadata"])?;
        Ok(object["status"].to_string().contains("169.254.169.254"))
    })
}
