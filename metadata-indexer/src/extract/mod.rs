//! What is learnt from the content of objects: the columns of the table `annotations`.
//!
//! * [`content`]: the content of an object, as a file that is read in parts.
//! * [`media`], [`image`], [`parquet`], [`text`]: what is built in.

mod content;
mod image;
mod media;
mod parquet;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tarndb_core::{Error, Result};

use crate::registry::Registry;

pub use content::Content;
pub(crate) use content::{Failure, Part, Ranges};

/// Texts by name.
pub(crate) type Pairs = BTreeMap<String, String>;

/// What is wrong with a content, for whoever reads the column `errors`.
pub(crate) type Wrong = Box<dyn std::error::Error + Send + Sync>;

/// Learns something from the content of objects: a user's own part of the table `annotations` of a metadata index.
///
/// An index uses those that its option `extract` names. What an extractor finds is in the column `attributes`, each name with the
/// extractor's before it, as `cat.score`, but for the empty name: that is `cat`.
pub trait Extractor: fmt::Debug + Send + Sync {
    /// Its name: letters, digits, `-` and `_`, and not `media`, `parquet` or `text`, which are built in.
    fn name(&self) -> &str;

    /// What it finds in an object; nothing, where there is nothing to say. It runs on a thread where it may block, and several run
    /// at once.
    ///
    /// # Errors
    /// What is wrong with this content, which the column `errors` tells. It is not tried again before the content is another. Errors of
    /// reading `object` may be handed on: the object is then read again later.
    fn extract(&self, object: Content)
    -> std::result::Result<BTreeMap<String, String>, Box<dyn std::error::Error + Send + Sync>>;
}

/// The extractors that indexes in this process may use. Copies are the same set.
#[derive(Debug, Clone, Default)]
pub struct Extractors(Registry<dyn Extractor>);

impl Extractors {
    /// Adds one, in the place of another of its name.
    ///
    /// # Errors
    /// `InvalidInput` for a name that it cannot have.
    pub fn register(&self, extractor: Arc<dyn Extractor>) -> Result<()> {
        let name = extractor.name().to_string();
        if BuiltIn::named(&name).is_some() {
            return Err(Error::invalid_input(format!(
                "an extractor cannot have the name `{name}`, which is that of a built-in one"
            )));
        }
        self.0.register("an extractor", &name, extractor)
    }

    /// Those of these names.
    ///
    /// # Errors
    /// `Unsupported` when one is not built in and was not registered.
    pub(crate) fn named(&self, names: &[String]) -> Result<Vec<Learner>> {
        let learner = |name: &String| {
            let own = || self.0.get(name).map(Learner::Own);
            BuiltIn::named(name).map(Learner::BuiltIn).or_else(own).ok_or_else(|| {
                Error::unsupported(format!(
                    "no extractor `{name}` is registered in this process; built in are {}",
                    BuiltIn::ALL.map(BuiltIn::name).join(", ")
                ))
            })
        };
        names.iter().map(learner).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuiltIn {
    Media,
    Parquet,
    Text,
}

impl BuiltIn {
    const ALL: [Self; 3] = [Self::Media, Self::Parquet, Self::Text];

    fn name(self) -> &'static str {
        match self {
            Self::Media => "media",
            Self::Parquet => "parquet",
            Self::Text => "text",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|built_in| built_in.name() == name)
    }
}

/// What learns something from contents.
#[derive(Debug, Clone)]
pub(crate) enum Learner {
    BuiltIn(BuiltIn),
    Own(Arc<dyn Extractor>),
}

/// What was learnt of a content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Annotation {
    pub(crate) media_type: Option<String>,
    /// In pixels.
    pub(crate) image_width: Option<i32>,
    pub(crate) image_height: Option<i32>,
    pub(crate) exif: Option<Pairs>,
    pub(crate) parquet_rows: Option<i64>,
    /// Types by the names of columns.
    pub(crate) parquet_columns: Option<Pairs>,
    pub(crate) text_lines: Option<i64>,
    pub(crate) text_encoding: Option<String>,
    /// What the user's own extractors say.
    pub(crate) attributes: Pairs,
    /// By extractor.
    pub(crate) errors: Pairs,
}

impl Learner {
    fn name(&self) -> &str {
        match self {
            Self::BuiltIn(built_in) => built_in.name(),
            Self::Own(own) => own.name(),
        }
    }

    fn learn(&self, content: &Content, annotation: &mut Annotation) -> std::result::Result<(), Wrong> {
        match self {
            Self::BuiltIn(BuiltIn::Media) => image::learn(content, annotation),
            Self::BuiltIn(BuiltIn::Parquet) => parquet::learn(content, annotation),
            Self::BuiltIn(BuiltIn::Text) => text::learn(content, annotation),
            Self::Own(own) => {
                for (name, value) in own.extract(content.clone())? {
                    let name = if name.is_empty() { own.name().to_string() } else { format!("{}.{name}", own.name()) };
                    annotation.attributes.insert(name, value);
                }
                Ok(())
            }
        }
    }
}

/// What is learnt from a content, on a thread that may block. One that goes wrong does not keep the others from learning.
///
/// # Errors
/// Why the content could not be read.
pub(crate) fn learn(learners: &[Learner], content: &Content) -> std::result::Result<Annotation, Failure> {
    let mut annotation = Annotation { media_type: content.media_type().map(str::to_string), ..Annotation::default() };
    for learner in learners {
        // What is not ours may do anything with what is not ours.
        let learnt = catch_unwind(AssertUnwindSafe(|| learner.learn(content, &mut annotation)));
        if let Some(failure) = content.failure() {
            return Err(failure);
        }
        let wrong = match learnt {
            Ok(Ok(())) => continue,
            Ok(Err(wrong)) => wrong.to_string(),
            Err(panic) => panicked(&*panic),
        };
        annotation.errors.insert(learner.name().to_string(), wrong);
    }
    Ok(annotation)
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let told = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it ended early: {}", told.unwrap_or("nobody says why"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom};

    use super::content::tests::with;
    use super::*;

    #[derive(Debug)]
    struct Own(&'static str);

    impl Extractor for Own {
        fn name(&self) -> &str {
            self.0
        }

        fn extract(&self, mut object: Content) -> std::result::Result<BTreeMap<String, String>, Wrong> {
            object.seek(SeekFrom::Start(1))?;
            let mut text = String::new();
            object.read_to_string(&mut text)?;
            match self.0 {
                "broken" => Err("no".into()),
                "panics" => panic!("oh"),
                _ => Ok([(String::new(), "true".to_string()), ("tail".to_string(), text)].into()),
            }
        }
    }

    #[test]
    fn extractors_are_found_by_name_and_do_not_stop_each_other() {
        let extractors = Extractors::default();
        for name in ["", "a b", "media", "a,b"] {
            assert!(extractors.register(Arc::new(Own(name))).is_err(), "{name}");
        }
        for name in ["broken", "panics", "cat"] {
            extractors.register(Arc::new(Own(name))).unwrap();
        }
        let names = ["broken", "panics", "cat", "text"].map(str::to_string);
        assert!(extractors.named(&["dog".to_string()]).unwrap_err().to_string().contains("`dog`"));
        let learners = extractors.named(&names).unwrap();
        let (learnt, _) = with(b"abc\n", move |content| learn(&learners, &content).unwrap());
        let pairs =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect::<Pairs>();
        assert_eq!(learnt.attributes, pairs(&[("cat", "true"), ("cat.tail", "bc\n")]));
        assert_eq!(learnt.errors, pairs(&[("broken", "no"), ("panics", "it ended early: oh")]));
        assert_eq!(learnt.text_lines, Some(1));
    }
}
