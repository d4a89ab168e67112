//! What Amazon's services have in common: how they are reached, and how they say no.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use tarndb_core::{Error, ErrorKind, Result};

use crate::options::IndexOptions;

/// How long a connection, and an attempt of a request, may take. A queue is asked to answer within 20 seconds.
const CONNECT: Duration = Duration::from_secs(5);
const ATTEMPT: Duration = Duration::from_secs(60);

/// Credentials, region and endpoint from the environment and AWS's files and services, and from what the options say.
///
/// # Errors
/// `InvalidInput` when nobody says which region.
pub(crate) async fn config(options: &IndexOptions) -> Result<SdkConfig> {
    let client = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build();
    let mut config = aws_config::defaults(BehaviorVersion::latest()).http_client(client).timeout_config(timeouts);
    if let Some(region) = options.region() {
        config = config.region(Region::new(region.to_string()));
    }
    if let Some(endpoint) = options.endpoint() {
        config = config.endpoint_url(endpoint);
    }
    let config = config.load().await;
    if config.region().is_none() {
        return Err(Error::invalid_input(
            "the region of the metadata index is not known: set AWS_REGION, or its option `region`",
        ));
    }
    Ok(config)
}

/// What went wrong in a request, without what it was signed with.
pub(crate) fn failed<E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static>(
    what: &str,
    error: SdkError<E, HttpResponse>,
) -> Error {
    let told = match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{what}: {code}: {message}"),
        (Some(code), None) => format!("{what}: {code}"),
        _ => match error.raw_response() {
            Some(response) => format!("{what}: HTTP status {}", response.status().as_u16()),
            None => what.to_string(),
        },
    };
    Error::new(ErrorKind::Unavailable, told).with_source(error)
}
