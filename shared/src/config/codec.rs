//! How the value of one setting is read and shown. A reader accepts what a file holds (a typed TOML value) and what a flag
//! or the environment holds (a string); what it refuses it explains by the limit that was missed.

use super::{KeySource, Secret};
use crate::{queue::Transport, task::QueueName};
use ipnet::IpNet;
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use toml::Value;

/// One kind of value.
pub(super) trait Codec<T> {
    /// The value, or what was expected.
    fn read(&self, value: &Value) -> Result<T, String>;
    /// The value as TOML; `None`: nothing is set.
    fn show(&self, value: &T) -> Option<String>;
}

/// A whole number between two limits.
pub(super) struct Count(pub(super) u64, pub(super) u64);

/// A length in bytes between two limits: `65536`, `"64KiB"`, `"16MiB"`.
pub(super) struct Bytes(pub(super) u64, pub(super) u64);

/// A duration between two limits: `"250ms"`, `"10s"`, `"5m"`, `"24h"`, `"7d"`.
pub(super) struct Time(pub(super) Duration, pub(super) Duration);

/// A value that may be switched off with `"none"`.
pub(super) struct Maybe<C>(pub(super) C);

/// An address: `host:port` with a literal IP.
pub(super) struct Address;

/// Free text.
pub(super) struct Text;

/// A file.
pub(super) struct FilePath;

/// Text that is never shown.
pub(super) struct Hidden;

/// A transport by its name.
pub(super) struct Transports;

/// Names of queues: a list, or one string with commas.
pub(super) struct Queues;

/// A JWK set: a file, or a URL.
pub(super) struct Jwks;

/// Names of asymmetric signature algorithms: a list, or one string with commas.
pub(super) struct Algorithms;

/// Origins of pages: a list, or one string with commas.
pub(super) struct Origins;

/// Networks or single addresses: a list, or one string with commas.
pub(super) struct Networks;

const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

impl<T: TryFrom<u64> + Copy + TryInto<u64>> Codec<T> for Count {
    fn read(&self, value: &Value) -> Result<T, String> {
        let number = match value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let fits = number.filter(|number| (self.0..=self.1).contains(number));
        fits.and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("expected a whole number from {} to {}", self.0, self.1))
    }

    fn show(&self, value: &T) -> Option<String> {
        (*value).try_into().ok().map(|number| number.to_string())
    }
}

const SIZES: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Codec<usize> for Bytes {
    fn read(&self, value: &Value) -> Result<usize, String> {
        let number = match value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::String(text) => measured(text, &SIZES),
            _ => None,
        };
        let fits = number.filter(|number| (self.0..=self.1).contains(number));
        fits.and_then(|number| usize::try_from(number).ok()).ok_or_else(|| {
            format!("expected bytes, as 65536 or \"16MiB\", from {} to {}", sized(self.0), sized(self.1))
        })
    }

    fn show(&self, value: &usize) -> Option<String> {
        let text = sized(u64::try_from(*value).ok()?);
        Some(if text.ends_with('B') { quoted(&text) } else { text })
    }
}

const UNITS: [(&str, u64); 5] = [("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

impl Codec<Duration> for Time {
    fn read(&self, value: &Value) -> Result<Duration, String> {
        let time = value.as_str().and_then(|text| measured(text, &UNITS)).map(Duration::from_millis);
        time.filter(|time| (self.0..=self.1).contains(time)).ok_or_else(|| {
            let (least, most) = (spelled(self.0), spelled(self.1));
            format!("expected a duration, as \"250ms\", \"10s\" or \"24h\", from {least} to {most}")
        })
    }

    fn show(&self, value: &Duration) -> Option<String> {
        Some(quoted(&spelled(*value)))
    }
}

impl Codec<PathBuf> for FilePath {
    fn read(&self, value: &Value) -> Result<PathBuf, String> {
        Text.read(value).map(PathBuf::from)
    }

    fn show(&self, value: &PathBuf) -> Option<String> {
        Some(quoted(&value.display().to_string()))
    }
}

impl<T, C: Codec<T>> Codec<Option<T>> for Maybe<C> {
    fn read(&self, value: &Value) -> Result<Option<T>, String> {
        match value.as_str() {
            Some("none" | "") => Ok(None),
            _ => self.0.read(value).map(Some).map_err(|expected| format!("{expected}, or \"none\"")),
        }
    }

    fn show(&self, value: &Option<T>) -> Option<String> {
        value.as_ref().map_or_else(|| Some(quoted("none")), |value| self.0.show(value))
    }
}

impl Codec<SocketAddr> for Address {
    fn read(&self, value: &Value) -> Result<SocketAddr, String> {
        let text = value.as_str().unwrap_or_default().trim().replace("localhost:", "127.0.0.1:");
        text.parse().map_err(|_| "expected an address with a port, as 127.0.0.1:8080 or [::]:8080".to_owned())
    }

    fn show(&self, value: &SocketAddr) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

impl Codec<String> for Text {
    fn read(&self, value: &Value) -> Result<String, String> {
        let text = value.as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| "expected a text".to_owned())
    }

    fn show(&self, value: &String) -> Option<String> {
        Some(quoted(value))
    }
}

impl Codec<Secret> for Hidden {
    fn read(&self, value: &Value) -> Result<Secret, String> {
        Text.read(value).map(Secret::new)
    }

    fn show(&self, value: &Secret) -> Option<String> {
        Some(quoted(&format!("{value:?}")))
    }
}

impl Codec<Transport> for Transports {
    fn read(&self, value: &Value) -> Result<Transport, String> {
        let named = Transport::ALL.into_iter().find(|transport| value.as_str() == Some(transport.as_str()));
        named.ok_or_else(|| {
            let names = Transport::ALL.map(|transport| quoted(transport.as_str()));
            format!("expected {}", names.join(" or "))
        })
    }

    fn show(&self, value: &Transport) -> Option<String> {
        Some(quoted(value.as_str()))
    }
}

impl Codec<KeySource> for Jwks {
    fn read(&self, value: &Value) -> Result<KeySource, String> {
        let expected =
            || "expected a file with a JWK set, or its URL: https, or http on this machine".to_owned();
        let text = value.as_str().filter(|text| !text.is_empty()).ok_or_else(expected)?;
        if !text.contains("://") {
            return Ok(KeySource::File(text.into()));
        }
        let url = text.parse::<http::Uri>().map_err(|_| expected())?;
        let here = matches!(url.host(), Some("127.0.0.1" | "localhost" | "[::1]"));
        match url.scheme_str() {
            Some("https") => Ok(KeySource::Url(text.to_owned())),
            Some("http") if here => Ok(KeySource::Url(text.to_owned())),
            _ => Err(expected()),
        }
    }

    fn show(&self, value: &KeySource) -> Option<String> {
        Some(match value {
            KeySource::File(path) => quoted(&path.display().to_string()),
            KeySource::Url(url) => quoted(url),
        })
    }
}

impl Codec<Vec<String>> for Origins {
    fn read(&self, value: &Value) -> Result<Vec<String>, String> {
        let names =
            names(value).map(|names| names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>());
        let names = names.filter(|names| names.iter().all(|name| is_origin(name)));
        let names =
            names.ok_or("expected origins such as https://app.example.com, without a path; * is none")?;
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn show(&self, value: &Vec<String>) -> Option<String> {
        Algorithms.show(value)
    }
}

impl Codec<Vec<IpNet>> for Networks {
    fn read(&self, value: &Value) -> Result<Vec<IpNet>, String> {
        let network = |text: &str| text.parse().or_else(|_| text.parse().map(IpAddr::into)).ok();
        let named = names(value);
        let read = named.and_then(|named| {
            named.into_iter().filter(|name| !name.is_empty()).map(network).collect::<Option<Vec<IpNet>>>()
        });
        read.ok_or_else(|| "expected networks or addresses, as 10.0.0.0/8 or 192.0.2.7".to_owned())
    }

    fn show(&self, value: &Vec<IpNet>) -> Option<String> {
        Algorithms.show(&value.iter().map(ToString::to_string).collect())
    }
}

/// `scheme://host[:port]`, as browsers send it.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        host.parse::<http::uri::Authority>().is_ok_and(|host| !host.as_str().contains('@'))
            && host == host.to_ascii_lowercase()
    })
}

impl Codec<Vec<String>> for Algorithms {
    fn read(&self, value: &Value) -> Result<Vec<String>, String> {
        let names = names(value)
            .filter(|names| !names.is_empty() && names.iter().all(|name| ALGORITHMS.contains(name)));
        let names = names.ok_or_else(|| format!("expected one or more of {}", ALGORITHMS.join(", ")))?;
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn show(&self, value: &Vec<String>) -> Option<String> {
        let names: Vec<String> = value.iter().map(|name| quoted(name)).collect();
        Some(format!("[{}]", names.join(", ")))
    }
}

/// A list of names, or one string with commas.
fn names(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(text.split(',').map(str::trim).collect()),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

impl Codec<Vec<QueueName>> for Queues {
    fn read(&self, value: &Value) -> Result<Vec<QueueName>, String> {
        let names = names(value);
        let queues: Option<Vec<QueueName>> =
            names.and_then(|names| names.into_iter().map(QueueName::new).collect());
        queues.filter(|queues| !queues.is_empty()).ok_or_else(|| {
            "expected names of queues, as [\"default\", \"batch\"] or \"default,batch\"".to_owned()
        })
    }

    fn show(&self, value: &Vec<QueueName>) -> Option<String> {
        let names: Vec<String> = value.iter().map(|name| quoted(name.as_str())).collect();
        Some(format!("[{}]", names.join(", ")))
    }
}

/// A number with one of these units, or a bare one where a unit of 1 has no name.
fn measured(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let bare = || text.parse().ok().filter(|_| units.iter().all(|(_, size)| *size > 1));
    let with = units.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?.trim_end(), size)));
    with.map_or_else(bare, |(number, size)| number.parse::<u64>().ok()?.checked_mul(*size))
}

fn sized(bytes: u64) -> String {
    let unit = SIZES.iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    unit.map_or_else(|| bytes.to_string(), |(name, size)| format!("{}{name}", bytes / size))
}

/// A duration as settings are written, for flags that are no settings.
///
/// # Errors
/// What was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    Time(Duration::ZERO, Duration::from_secs(366 * 86_400)).read(&Value::from(text))
}

/// The shortest spelling that reads back as the same duration.
pub(super) fn spelled(time: Duration) -> String {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let whole = UNITS[1..].iter().find(|(_, size)| ms >= *size && ms.is_multiple_of(*size));
    whole.map_or_else(|| format!("{ms}ms"), |(unit, size)| format!("{}{unit}", ms / size))
}

/// A text as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_back_as_they_are_shown() {
        let any = Time(Duration::ZERO, Duration::MAX);
        for (text, ms) in
            [("250ms", 250), ("10s", 10_000), ("90s", 90_000), ("24h", 86_400_000), ("7d", 604_800_000)]
        {
            let time = any.read(&Value::from(text)).expect(text);
            assert_eq!(time, Duration::from_millis(ms));
            assert_eq!(any.read(&Value::from(spelled(time))), Ok(time));
        }
        for text in ["10", "s", "-1s", "1.5s", "10 parsecs", ""] {
            assert!(any.read(&Value::from(text)).is_err(), "{text}");
        }
        let bytes = Bytes(0, 1 << 40);
        assert_eq!(bytes.read(&Value::from("256KiB")), Ok(256 << 10));
        assert_eq!(bytes.read(&Value::from("65537")), Ok(65_537));
        assert_eq!(bytes.show(&(16 << 20)).as_deref(), Some("\"16MiB\""));
    }

    #[test]
    fn limits_are_named() {
        let refused = Codec::<u32>::read(&Count(1, 64), &Value::from(0));
        assert_eq!(refused, Err("expected a whole number from 1 to 64".to_owned()));
    }
}
