//! A pod's ProxyConfig: the mesh's defaults with annotation `proxy.istio.io/config` laid over them.

use super::annotations::{Annotations, bad};
use super::{InjectError, Settings};
use lateen_api::mesh_config::ProxyConfig;
use serde_json::{Value, json};

const KEY: &str = "proxy.istio.io/config";

/// The settings for one pod. The annotation wins field by field; `proxyMetadata` merges by name.
pub(super) fn merged(
    annotations: &Annotations,
    settings: &Settings,
) -> Result<ProxyConfig, InjectError> {
    let mut config = settings.proxy_defaults.clone();
    config
        .discovery_address
        .get_or_insert_with(|| settings.discovery());
    let Some(text) = annotations.text(KEY).filter(|text| !text.is_empty()) else {
        return Ok(config);
    };
    let refused = || bad(KEY, text, "ProxyConfig in YAML");
    let (own, _) = lateen_api::yaml::plain(text).map_err(|_| refused())?;
    let own = own.as_object().ok_or_else(refused)?;
    let mut all = json!(config);
    for (field, value) in own {
        match (all[field].as_object_mut(), value.as_object()) {
            (Some(below), Some(own)) => {
                below.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            _ => all[field] = value.clone(),
        }
    }
    let config: ProxyConfig = serde_json::from_value(all).map_err(|_| refused())?;
    let plain = |name: &str| {
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
    };
    match config.proxy_metadata.keys().all(|name| plain(name)) {
        true => Ok(config),
        false => Err(bad(
            KEY,
            text,
            "ProxyConfig whose proxyMetadata are names of environment variables",
        )),
    }
}

/// The settings as JSON without what is absent (Istio: environment variable `PROXY_CONFIG`).
pub(super) fn text(config: &ProxyConfig) -> String {
    let mut value = json!(config);
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| match value {
            Value::Null => false,
            Value::Object(map) => !map.is_empty(),
            _ => true,
        });
    }
    value.to_string()
}
