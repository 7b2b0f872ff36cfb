//! Image configuration (OCI image specification, "Image Configuration"), the part a runtime honours.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::platform::Platform;

/// Largest configuration that is read.
pub(crate) const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// What an image says about how to run it. Absent lists are empty, absent strings are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    /// Operating system, architecture and variant.
    pub platform: Platform,
    /// Program and first arguments; command-line arguments replace `cmd`, not this.
    pub entrypoint: Vec<String>,
    /// Default arguments, or the whole command when there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=value` pairs in order.
    pub env: Vec<String>,
    /// `user[:group]`, names or numbers; empty means root.
    pub user: String,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `port/protocol`, sorted.
    pub exposed_ports: Vec<String>,
    /// Paths declared as volumes, sorted.
    pub volumes: Vec<String>,
    /// Signal that asks the command to stop, as a name or number; `None` means SIGTERM.
    pub stop_signal: Option<String>,
    /// Creation time as RFC 3339 text.
    pub created: Option<String>,
    /// Digests of the uncompressed layers, lowest first. The store fills them in for images it builds.
    pub diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// A configuration that says nothing but its platform.
    pub fn new(platform: Platform) -> ImageConfig {
        ImageConfig {
            platform,
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: Vec::new(),
            user: String::new(),
            working_dir: String::new(),
            labels: BTreeMap::new(),
            exposed_ports: Vec::new(),
            volumes: Vec::new(),
            stop_signal: None,
            created: None,
            diff_ids: Vec::new(),
        }
    }

    /// Reads the JSON document; `what` names it in errors.
    pub(crate) fn parse(what: &str, json: &[u8]) -> Result<ImageConfig> {
        let document: Document = serde_json::from_slice(json).map_err(|error| Error::BadDocument {
            what: what.to_owned(),
            reason: error.to_string(),
        })?;
        let process = document.config;
        Ok(ImageConfig {
            platform: document.platform,
            entrypoint: process.entrypoint,
            cmd: process.cmd,
            env: process.env,
            user: process.user,
            working_dir: process.working_dir,
            labels: process.labels,
            exposed_ports: process.exposed_ports.into_keys().collect(),
            volumes: process.volumes.into_keys().collect(),
            stop_signal: process.stop_signal.filter(|signal| !signal.is_empty()),
            created: document.created,
            diff_ids: document.rootfs.diff_ids,
        })
    }

    /// The JSON document, byte for byte the same for equal configurations.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let set = |names: &[String]| names.iter().map(|name| (name.clone(), Empty {})).collect();
        let document = Document {
            created: self.created.clone(),
            platform: self.platform.clone(),
            config: Process {
                user: self.user.clone(),
                exposed_ports: set(&self.exposed_ports),
                env: self.env.clone(),
                entrypoint: self.entrypoint.clone(),
                cmd: self.cmd.clone(),
                volumes: set(&self.volumes),
                working_dir: self.working_dir.clone(),
                labels: self.labels.clone(),
                stop_signal: self.stop_signal.clone(),
            },
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: self.diff_ids.clone(),
            },
        };
        // Strings and maps with string keys always have a JSON form.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

/// The document's own shape. Docker writes `null` where OCI leaves a field out.
#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(flatten)]
    platform: Platform,
    #[serde(default, deserialize_with = "null_as_default")]
    config: Process,
    rootfs: RootFs,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Process {
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    user: String,
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    exposed_ports: BTreeMap<String, Empty>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    cmd: Vec<String>,
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    volumes: BTreeMap<String, Empty>,
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    working_dir: String,
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, deserialize_with = "null_as_default")]
    diff_ids: Vec<Digest>,
}

#[derive(Serialize, Deserialize)]
struct Empty {}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_parse_docker_nulls_are_absent() {
        let json =
            br#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],"Entrypoint":null,
            "ExposedPorts":{"80/tcp":{}},"Volumes":null,"Labels":null,"User":"1:2","WorkingDir":"/w",
            "StopSignal":"SIGQUIT"},"rootfs":{"type":"layers","diff_ids":null},"history":[]}"#;
        let config = ImageConfig::parse("config", json).unwrap();
        assert_eq!(config.cmd, ["sh"]);
        assert_eq!(config.exposed_ports, ["80/tcp"]);
        assert_eq!(config.user, "1:2");
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
        assert!(config.env.is_empty() && config.diff_ids.is_empty());
    }

    #[test]
    fn config_to_json_parses_back_equal() {
        let mut config = ImageConfig::new(Platform::linux("amd64"));
        config.env = vec!["A=b".into()];
        config.volumes = vec!["/data".into()];
        config.diff_ids = vec![Digest::of(b"x")];
        assert_eq!(ImageConfig::parse("config", &config.to_json()).unwrap(), config);
    }

    #[test]
    fn config_parse_garbage_names_the_document() {
        let error = ImageConfig::parse("config sha256:00", b"[").unwrap_err();
        assert!(
            error.to_string().starts_with("config sha256:00 is refused"),
            "{error}"
        );
    }
}
