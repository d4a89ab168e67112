use std::error::Error as StdError;
use std::fmt;

/// A `Result` whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong (SQL, a value, a schema): change it.
    InvalidInput,
    /// The named thing does not exist.
    NotFound,
    /// The named thing exists already.
    AlreadyExists,
    /// Another writer changed what this operation depends on: run it again on the new state.
    CommitConflict,
    /// It could not be learnt whether the commit took effect: look before trying again. Nothing was cleaned up.
    CommitStateUnknown,
    /// Storage or catalog could not be reached or refused: try again later.
    Unavailable,
    /// A limit was met (disk, memory, time): free some, then try again.
    ResourcesExhausted,
    /// tarndb does not offer this.
    Unsupported,
    /// Stored data is missing, damaged or against its specification.
    DataInvalid,
    /// The caller cancelled the operation.
    Cancelled,
    /// A defect in tarndb: please report it.
    Internal,
}

impl ErrorKind {
    /// Every kind, for bindings that map kinds to their own codes.
    pub const ALL: [ErrorKind; 11] = [
        ErrorKind::InvalidInput,
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::CommitConflict,
        ErrorKind::CommitStateUnknown,
        ErrorKind::Unavailable,
        ErrorKind::ResourcesExhausted,
        ErrorKind::Unsupported,
        ErrorKind::DataInvalid,
        ErrorKind::Cancelled,
        ErrorKind::Internal,
    ];

    /// The name of the kind, as users of every binding see it.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::InvalidInput => "InvalidInput",
            ErrorKind::NotFound => "NotFound",
            ErrorKind::AlreadyExists => "AlreadyExists",
            ErrorKind::CommitConflict => "CommitConflict",
            ErrorKind::CommitStateUnknown => "CommitStateUnknown",
            ErrorKind::Unavailable => "Unavailable",
            ErrorKind::ResourcesExhausted => "ResourcesExhausted",
            ErrorKind::Unsupported => "Unsupported",
            ErrorKind::DataInvalid => "DataInvalid",
            ErrorKind::Cancelled => "Cancelled",
            ErrorKind::Internal => "Internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error of every tarndb operation: a kind that tells what to do, a message, the things it is about, and its cause.
///
/// `Display` gives message and context; [`Error::report`] adds the causes.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync + 'static>>,
}

impl Error {
    /// A new error. `message` is lower case and names the thing.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), context: Vec::new(), source: None }))
    }

    /// [`ErrorKind::InvalidInput`].
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// [`ErrorKind::DataInvalid`].
    pub fn data_invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::DataInvalid, message)
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds what the error is about, as ``key=`value` ``. The first value of a key stays, which is from where it went wrong.
    pub fn with_context(mut self, key: &'static str, value: impl Into<String>) -> Self {
        if self.0.context.iter().all(|(known, _)| *known != key) {
            self.0.context.push((key, value.into()));
        }
        self
    }

    /// What the error is about, where [`Error::with_context`] said so.
    pub fn context(&self, key: &str) -> Option<&str> {
        self.0.context.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str())
    }

    /// Sets the cause.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync + 'static>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind, which tells what the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Message, context and all causes on one line, each said once.
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            let line = cause.to_string();
            // A cause that only puts a label before the message says it again.
            if !text.contains(&line) && !line.ends_with(&self.0.message) {
                text.push_str(": ");
                text.push_str(&line);
            }
            source = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (key, value) in &self.0.context {
            write!(f, ", {key}=`{value}`")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind, self.report())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// `ENOSPC` and `EDQUOT` anywhere in the chain of causes.
fn is_disk_full(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(e) = cause {
        if let Some(io) = e.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        cause = e.source();
    }
    false
}

impl From<object_store::Error> for Error {
    fn from(e: object_store::Error) -> Self {
        use object_store::Error as E;
        let (kind, message) = match &e {
            E::NotFound { path, .. } => (ErrorKind::NotFound, format!("file `{path}` does not exist")),
            E::AlreadyExists { path, .. } => (ErrorKind::AlreadyExists, format!("file `{path}` exists already")),
            E::PermissionDenied { path, .. } | E::Unauthenticated { path, .. } => {
                (ErrorKind::Unavailable, format!("storage denies access to `{path}`"))
            }
            E::NotImplemented { operation, .. } => (ErrorKind::Unsupported, format!("storage does not offer `{operation}`")),
            _ if is_disk_full(&e) => (ErrorKind::ResourcesExhausted, "no space left in storage".to_string()),
            _ => (ErrorKind::Unavailable, "storage failed".to_string()),
        };
        Error::new(kind, message).with_source(e)
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        match e.downcast::<object_store::Error>() {
            Ok(storage) => storage.into(),
            Err(e) if is_disk_full(&e) => Error::new(ErrorKind::ResourcesExhausted, "no space left in storage").with_source(e),
            Err(e) => Error::new(ErrorKind::Unavailable, "input or output failed").with_source(e),
        }
    }
}

impl From<iceberg::Error> for Error {
    fn from(e: iceberg::Error) -> Self {
        use iceberg::ErrorKind as K;
        // An error of our own storage bridge carries its kind through iceberg's error.
        let mut cause: Option<&(dyn StdError + 'static)> = e.source();
        while let Some(inner) = cause {
            if let Some(ours) = inner.downcast_ref::<Error>() {
                return Error::new(ours.kind(), ours.to_string()).with_source(e);
            }
            cause = inner.source();
        }
        let kind = match e.kind() {
            K::FeatureUnsupported => ErrorKind::Unsupported,
            K::NamespaceNotFound | K::TableNotFound => ErrorKind::NotFound,
            K::NamespaceAlreadyExists | K::TableAlreadyExists => ErrorKind::AlreadyExists,
            K::CatalogCommitConflicts | K::PreconditionFailed => ErrorKind::CommitConflict,
            _ => ErrorKind::DataInvalid,
        };
        Error::new(kind, e.message().to_string()).with_source(e)
    }
}
