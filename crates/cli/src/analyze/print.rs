//! Findings as text (Istio: `istioctl analyze`), JSON or YAML.

use anyhow::{Result, bail};
use lateen_api::notice::Notice;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The findings in the form that was asked for.
pub(super) fn text(form: &str, found: &[&Notice], place: &str) -> Result<String> {
    match form {
        "log" if found.is_empty() => Ok(format!(
            "✔ No validation issues found when analyzing {place}.\n"
        )),
        "log" => Ok(found.iter().map(|notice| line(notice)).collect()),
        "json" => Ok(format!("{:#}\n", values(found))),
        "yaml" => Ok(serde_saphyr::to_string(&values(found))?),
        other => bail!("-o {other} is not known: use log, json or yaml"),
    }
}

fn line(notice: &Notice) -> String {
    let mut line = notice.severity.to_string();
    // Writing to a String cannot fail.
    if let Some(code) = notice.code {
        let _ = write!(line, " [{code}]");
    }
    let _ = write!(line, " ({}", notice.subject);
    if let Some(place) = &notice.place {
        let _ = write!(line, " {}:{}", place.file, place.line);
    }
    line.push_str(") ");
    if !notice.field.is_empty() {
        let _ = write!(line, "{}: ", notice.field);
    }
    let _ = writeln!(line, "{}", notice.message);
    line
}

fn values(found: &[&Notice]) -> Value {
    let one = |notice: &&Notice| {
        let mut value = json!({
            "level": notice.severity.to_string(),
            "origin": notice.subject.to_string(),
            "field": notice.field,
            "message": notice.message,
        });
        if let Some(code) = notice.code {
            value["code"] = code.into();
        }
        if let Some(place) = &notice.place {
            value["reference"] = format!("{}:{}", place.file, place.line).into();
        }
        value
    };
    found.iter().map(one).collect()
}
