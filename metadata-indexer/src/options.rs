use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tarndb_core::{Error, Result};

use crate::event::EventKind;
use crate::object_filter::ObjectFilter;
use crate::registry::is_name;

/// How a metadata index is kept: the options of `CREATE METADATA INDEX … WITH (name = 'value', …)`.
///
/// | Option | Meaning |
/// |---|---|
/// | `events` | Where the bucket's events come from: `sqs://QUEUE` or `sqs://ACCOUNT/QUEUE`, a queue of Amazon SQS; `http://127.0.0.1:9000/PATH`, where this process listens for them; `own://NAME`, the user's own [`EventSource`](crate::EventSource) of this name |
/// | `secret` | Where the secret is that senders of events over HTTP must know: `env:NAME` or `file:PATH` |
/// | `allow_remote` | `true`: listen for events on an address that other machines reach. Put a proxy in front that bounds how many connections a stranger has |
/// | `endpoint` | Where the store and the queue are, when that is not said by the environment |
/// | `region` | The region of the store and the queue, likewise |
/// | `suffix` | What keys of the index end in: `.jpg`, or `.jpg,.png` for one of several. Other objects are not in it |
/// | `min_size`, `max_size` | How many bytes objects of the index have at least, and at most. An object that is overwritten with fewer, or more, leaves it |
/// | `event_kinds` | Which events are heeded: `created`, `deleted`, and `metadata` for those of tags, storage classes and the like, with commas between them. Of what others tell, the next listing finds what it shows. All, where nothing is said |
/// | `hook` | The user's own [`EventHook`](crate::EventHook) of this name, which changes events before they are heeded |
/// | `fetch` | What is asked of the store for each new object: `metadata`, `tags`, both with a comma between them, or `none`. Both, where nothing is said |
/// | `extract` | What is learnt from the content of objects, for the table `annotations`: `media` (media type, size and EXIF of images), `parquet` (rows and columns), `text` (lines and encoding), and names of the user's own [`Extractor`](crate::Extractor)s, with commas between them. Nothing, where nothing is said |
/// | `reconcile_every` | How often the bucket is listed: `10 minutes`, `1 day`, `never`. Without events, each hour; with events from a queue, each day; from elsewhere, each hour |
/// | `journal_retention` | How long changes stay in the journal: `30 days`, at least 15. For ever, where nothing is said |
///
/// Options are table properties of the index's journal, so there is no place for a secret in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexOptions(BTreeMap<&'static str, String>);

/// All options.
const NAMES: [&str; 14] = [
    "events",
    "secret",
    "allow_remote",
    "endpoint",
    "region",
    "suffix",
    "min_size",
    "max_size",
    "event_kinds",
    "hook",
    "fetch",
    "extract",
    "reconcile_every",
    "journal_retention",
];

/// A journal keeps at least what is needed to know what is told twice or late, in days.
const SHORTEST_RETENTION: u32 = 15;

/// Where events come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Feed {
    Queue {
        account: Option<String>,
        name: String,
    },
    /// Host, port and path, which begins with a slash.
    Webhook {
        host: String,
        port: u16,
        path: String,
    },
    /// The user's own, by name.
    Own(String),
}

/// What is asked of the store for each object that is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetch {
    pub(crate) metadata: bool,
    pub(crate) tags: bool,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretPlace {
    Environment(String),
    File(String),
}

fn wrong(name: &str, value: &str, wanted: &str) -> Error {
    Error::invalid_input(format!("the option `{name}` of a metadata index is `{value}`: {wanted}"))
}

impl IndexOptions {
    /// With one option more.
    ///
    /// # Errors
    /// `InvalidInput` for a value that the option cannot have, and an option that was given before; `Unsupported` for other options.
    pub fn with(mut self, name: &str, value: &str) -> Result<Self> {
        let known = NAMES.iter().find(|known| **known == name);
        let known = known
            .ok_or_else(|| Error::unsupported(format!("a metadata index has no option `{name}`, but {}", NAMES.join(", "))))?;
        if self.0.insert(known, value.to_string()).is_some() {
            return Err(Error::invalid_input(format!("the option `{name}` of a metadata index is there twice")));
        }
        self.events()?;
        self.secret()?;
        self.allow_remote()?;
        self.filter()?;
        self.event_kinds()?;
        self.hook()?;
        self.fetch()?;
        self.extract()?;
        if self.endpoint().is_some_and(|endpoint| endpoint.contains(['@', '?', '#'])) {
            return Err(Error::invalid_input("the option `endpoint` of a metadata index has no place for credentials"));
        }
        self.reconcile_every()?;
        self.journal_retention_days()?;
        Ok(self)
    }

    /// Names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.get("endpoint")
    }

    pub(crate) fn region(&self) -> Option<&str> {
        self.get("region")
    }

    pub(crate) fn events(&self) -> Result<Option<Feed>> {
        let Some(events) = self.get("events") else { return Ok(None) };
        let wanted = "a queue is `sqs://QUEUE` or `sqs://ACCOUNT/QUEUE`, a webhook `http://127.0.0.1:9000/PATH`, one of the user's own `own://NAME`";
        // What may be a secret is not told.
        let shown = if events.contains(['@', '?']) { "a location with more than a path" } else { events };
        let wrong = || wrong("events", shown, wanted);
        match events.split_once("://") {
            Some(("sqs", queue)) => {
                let (account, name) = match queue.split_once('/') {
                    Some((account, name)) => (Some(account.to_string()), name),
                    None => (None, queue),
                };
                let is_name =
                    |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
                if !is_name(name) || account.as_deref().is_some_and(|account| !is_name(account)) {
                    return Err(wrong());
                }
                Ok(Some(Feed::Queue { account, name: name.to_string() }))
            }
            Some(("http", _)) => {
                let url = url::Url::parse(events).map_err(|_| wrong())?;
                let plain =
                    url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
                let (Some(host), Some(port), true) = (url.host(), url.port(), plain) else { return Err(wrong()) };
                let host = match host {
                    url::Host::Domain(name) => name.to_string(),
                    url::Host::Ipv4(address) => address.to_string(),
                    url::Host::Ipv6(address) => address.to_string(),
                };
                Ok(Some(Feed::Webhook { host, port, path: url.path().to_string() }))
            }
            Some(("own", name)) if is_name(name) => Ok(Some(Feed::Own(name.to_string()))),
            _ => Err(wrong()),
        }
    }

    pub(crate) fn secret(&self) -> Result<Option<SecretPlace>> {
        let Some(secret) = self.get("secret") else { return Ok(None) };
        match secret.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Some(SecretPlace::Environment(name.to_string()))),
            Some(("file", path)) if !path.is_empty() => Ok(Some(SecretPlace::File(path.to_string()))),
            // Somebody may have typed the secret itself.
            _ => Err(Error::invalid_input(
                "the option `secret` of a metadata index says where the secret is: `env:NAME` or `file:PATH`",
            )),
        }
    }

    pub(crate) fn allow_remote(&self) -> Result<bool> {
        match self.get("allow_remote") {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(wrong("allow_remote", other, "it is `true` or `false`")),
        }
    }

    /// The objects that the index is about.
    pub(crate) fn filter(&self) -> Result<ObjectFilter> {
        let mut suffixes = Vec::new();
        if let Some(text) = self.get("suffix") {
            suffixes = text.split(',').map(|suffix| suffix.trim().to_string()).collect();
            if suffixes.iter().any(String::is_empty) {
                return Err(wrong("suffix", text, "it is what keys end in, or several of these with commas between them"));
            }
        }
        let bytes = |name: &str| {
            let bytes = |text: &str| text.parse().ok().filter(|bytes| *bytes >= 0);
            let parsed = self.get(name).map(|text| bytes(text).ok_or_else(|| wrong(name, text, "it is a number of bytes")));
            parsed.transpose()
        };
        let (least, most) = (bytes("min_size")?.unwrap_or(0), bytes("max_size")?.unwrap_or(i64::MAX));
        if least > most {
            return Err(wrong("min_size", &least.to_string(), "it is more than `max_size`"));
        }
        Ok(ObjectFilter::new(suffixes, least..=most))
    }

    /// The kinds of events that are heeded; `None` is all.
    pub(crate) fn event_kinds(&self) -> Result<Option<Vec<EventKind>>> {
        let Some(text) = self.get("event_kinds") else { return Ok(None) };
        let kind = |name: &str| match name.trim() {
            "created" => Ok(EventKind::Created),
            "deleted" => Ok(EventKind::Deleted),
            "metadata" => Ok(EventKind::Metadata),
            _ => Err(wrong("event_kinds", text, "it is `created`, `deleted` and `metadata`, with commas between them")),
        };
        text.split(',').map(kind).collect::<Result<_>>().map(Some)
    }

    /// The name of what changes events.
    pub(crate) fn hook(&self) -> Result<Option<&str>> {
        match self.get("hook") {
            Some(name) if !is_name(name) => Err(wrong("hook", name, "it is a name of letters, digits, `-` and `_`")),
            other => Ok(other),
        }
    }

    pub(crate) fn fetch(&self) -> Result<Fetch> {
        let Some(text) = self.get("fetch") else { return Ok(Fetch { metadata: true, tags: true }) };
        let mut fetch = Fetch { metadata: false, tags: false };
        if text == "none" {
            return Ok(fetch);
        }
        for part in text.split(',') {
            match part.trim() {
                "metadata" => fetch.metadata = true,
                "tags" => fetch.tags = true,
                _ => return Err(wrong("fetch", text, "it is `metadata`, `tags`, `metadata,tags` or `none`")),
            }
        }
        Ok(fetch)
    }

    /// The names of extractors.
    pub(crate) fn extract(&self) -> Result<Vec<String>> {
        let Some(text) = self.get("extract") else { return Ok(Vec::new()) };
        let mut names: Vec<String> = Vec::new();
        for name in text.split(',').map(str::trim) {
            if !is_name(name) || names.iter().any(|other| other == name) {
                return Err(wrong("extract", text, "it is names of extractors, each once, with commas between them"));
            }
            names.push(name.to_string());
        }
        Ok(names)
    }

    /// `None` is for ever.
    pub(crate) fn journal_retention_days(&self) -> Result<Option<u32>> {
        let Some(text) = self.get("journal_retention") else { return Ok(None) };
        let days = text.strip_suffix(" days").and_then(|days| days.parse().ok()).filter(|days| *days >= SHORTEST_RETENTION);
        let wanted = format!("it is a number of days, at least {SHORTEST_RETENTION}, as in `30 days`");
        days.map(Some).ok_or_else(|| wrong("journal_retention", text, &wanted))
    }

    /// `None` is never.
    pub(crate) fn reconcile_every(&self) -> Result<Option<Duration>> {
        const HOUR: Duration = Duration::from_secs(3600);
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let Some(text) = self.get("reconcile_every") else {
            return Ok(Some(if matches!(self.events()?, Some(Feed::Queue { .. })) { DAY } else { HOUR }));
        };
        if text == "never" {
            return Ok(None);
        }
        let wrong = || wrong("reconcile_every", text, "it is `never`, or a number and a unit, as in `10 minutes`");
        let (number, unit) = text.split_once(' ').ok_or_else(wrong)?;
        let number: u64 = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
        let unit = match unit.trim().strip_suffix('s').unwrap_or(unit.trim()) {
            "second" => Duration::from_secs(1),
            "minute" => Duration::from_secs(60),
            "hour" => HOUR,
            "day" => DAY,
            _ => return Err(wrong()),
        };
        let seconds = unit.as_secs().checked_mul(number).filter(|seconds| *seconds <= 366 * DAY.as_secs());
        seconds.map(Duration::from_secs).map(Some).ok_or_else(wrong)
    }
}

impl fmt::Display for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue { account: Some(account), name } => write!(f, "sqs://{account}/{name}"),
            Self::Queue { account: None, name } => write!(f, "sqs://{name}"),
            Self::Own(name) => write!(f, "own://{name}"),
            Self::Webhook { host, port, path } if host.contains(':') => write!(f, "http://[{host}]:{port}{path}"),
            Self::Webhook { host, port, path } => write!(f, "http://{host}:{port}{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tarndb_core::ErrorKind;

    use super::*;
    use crate::record::ObjectState;

    fn with(name: &str, value: &str) -> Result<IndexOptions> {
        IndexOptions::default().with(name, value)
    }

    #[test]
    fn options_are_checked_when_they_are_given() {
        let queue =
            |account: Option<&str>, name: &str| Feed::Queue { account: account.map(str::to_string), name: name.to_string() };
        let hook = |host: &str, port, path: &str| Feed::Webhook { host: host.to_string(), port, path: path.to_string() };
        for (text, feed) in [
            ("sqs://changes", queue(None, "changes")),
            ("sqs://111122223333/changes.fifo", queue(Some("111122223333"), "changes.fifo")),
            ("http://127.0.0.1:9000/docs", hook("127.0.0.1", 9000, "/docs")),
            ("http://[::1]:9000/", hook("::1", 9000, "/")),
            ("own://kafka", Feed::Own("kafka".to_string())),
        ] {
            let feed_of = with("events", text).unwrap().events().unwrap().unwrap();
            assert_eq!(feed_of, feed, "{text}");
            assert_eq!(feed_of.to_string(), text);
        }
        let wrong = [
            ("events", "changes"),
            ("events", "sqs://"),
            ("events", "sqs://a/b/c"),
            ("events", "http://127.0.0.1/x"),
            ("events", "http://user:word@127.0.0.1:1/x"),
            ("events", "kafka://x"),
            ("events", "own://a/b"),
            ("hook", ""),
            ("secret", "hunter2"),
            ("secret", "env:"),
            ("endpoint", "http://user:hunter2@127.0.0.1"),
            ("allow_remote", "yes"),
            ("fetch", "all"),
            ("suffix", ".jpg,"),
            ("min_size", "-1"),
            ("max_size", "1 GB"),
            ("event_kinds", "created,read"),
            ("event_kinds", ""),
            ("extract", "media,,text"),
            ("extract", "media,media"),
            ("extract", "it's"),
            ("reconcile_every", "0 days"),
            ("reconcile_every", "1 month"),
            ("journal_retention", "14 days"),
            ("journal_retention", "1 year"),
            ("reconcile_every", "99999999999 days"),
        ];
        for (name, value) in wrong {
            let error = with(name, value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name} {value}");
            assert!(!error.to_string().contains("hunter2"));
        }
        assert_eq!(with("extrakt", "media").unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(with("extract", "media, my-cat_2").unwrap().extract().unwrap(), ["media", "my-cat_2"]);
        let filter = with("suffix", ".jpg, .png").unwrap().filter().unwrap();
        let keys = ["a.jpg", "b/c.png", "c.JPG", "jpg", ".jpg"];
        assert_eq!(keys.map(|key| filter.keeps_key(key)), [true, true, false, false, true]);
        let filter = with("min_size", "2").unwrap().with("max_size", "4").unwrap().filter().unwrap();
        let state = |size| ObjectState { size, ..ObjectState::default() };
        let sizes = [None, Some(1), Some(2), Some(4), Some(5)];
        assert_eq!(sizes.map(|size| filter.keeps(&state(size))), [true, false, true, true, false]);
        let nothing = with("max_size", "4").unwrap().with("min_size", "5").unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::InvalidInput);
        let kinds = with("event_kinds", "created, deleted").unwrap().event_kinds().unwrap();
        assert_eq!(kinds, Some(vec![EventKind::Created, EventKind::Deleted]));
        assert_eq!(with("region", "a").unwrap().with("region", "a").unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn schedules_and_what_is_fetched() {
        let every = |value: &str| with("reconcile_every", value).unwrap().reconcile_every().unwrap();
        assert_eq!(every("never"), None);
        assert_eq!(every("90 seconds"), Some(Duration::from_secs(90)));
        assert_eq!(every("1 day"), Some(Duration::from_secs(86_400)));
        assert_eq!(IndexOptions::default().reconcile_every().unwrap(), Some(Duration::from_secs(3600)));
        assert_eq!(with("events", "sqs://q").unwrap().reconcile_every().unwrap(), Some(Duration::from_secs(86_400)));
        assert_eq!(with("journal_retention", "30 days").unwrap().journal_retention_days().unwrap(), Some(30));
        let fetch = |value: &str| with("fetch", value).unwrap().fetch().unwrap();
        assert_eq!(fetch("none"), Fetch { metadata: false, tags: false });
        assert_eq!(fetch("tags"), Fetch { metadata: false, tags: true });
        assert_eq!(fetch("metadata, tags"), IndexOptions::default().fetch().unwrap());
    }
}
