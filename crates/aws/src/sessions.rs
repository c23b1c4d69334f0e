//! Credentials, timeouts and endpoints, loaded once; clients by Region, made when first asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
use offramp_core::{AccountRegion, Region};
use offramp_engine::{self as engine, Fault, Groups, Metrics, Targets};

use crate::groups::{AutoScaling, GroupTag};
use crate::meter::Meter;
use crate::open::OpenError;
use crate::targets::LoadBalancing;

/// What the operator may say about the way to AWS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The Region of the queue. `None`: what the SDK finds, which may cost a question to the instance's
    /// metadata service.
    pub region: Option<Region>,
    /// One endpoint for every service that has no `AWS_ENDPOINT_URL…` of its own. `None`: AWS's own.
    pub endpoint_url: Option<String>,
}

/// One set of credentials with the settings for every client made from it.
#[derive(Clone, Debug)]
pub struct Access {
    config: SdkConfig,
    meter: Meter,
}

impl Access {
    /// Reads environment, profiles and options. No call is made for credentials: the first real call
    /// brings missing ones to light, within seconds.
    pub async fn load(options: &Options) -> Result<Self, OpenError> {
        Self::load_from(aws_config::defaults(behaviour()), options).await
    }

    /// The way to a sandbox: one endpoint, made-up credentials, and nothing of the environment, so that
    /// nothing of it can reach AWS.
    pub fn sandbox(endpoint_url: &str, region: &Region) -> Self {
        let credentials = Credentials::new("sandbox", "sandbox", None, None, "sandbox");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(sdk_region(region))
            .endpoint_url(endpoint_url)
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts(READ_TIMEOUT))
            .build();
        Self { config, meter: Meter::default() }
    }

    pub(crate) async fn load_from(loader: ConfigLoader, options: &Options) -> Result<Self, OpenError> {
        let loader = loader
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts(READ_TIMEOUT))
            .identity_cache(IdentityCache::lazy().load_timeout(CREDENTIALS_TIMEOUT).build())
            // A long poll is a request that is sent at once and answered late. Only an answer that stops
            // half-way is a stall.
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled().upload_enabled(false).build(),
            );
        let loader = match &options.region {
            Some(region) => loader.region(sdk_region(region)),
            None => loader,
        };
        let mut config = loader.load().await;
        if config.region().is_none() {
            let text = "finding the AWS Region: none is configured; set aws.region or AWS_REGION";
            return Err(OpenError::Invalid(text.to_owned()));
        }
        if let Some(url) = &options.endpoint_url {
            // The SDK would find out at the first call, and look like a network that is down.
            if !url.starts_with("http://") && !url.starts_with("https://") {
                let text = "using the configured AWS endpoint: it must start with http:// or https://";
                return Err(OpenError::Invalid(text.to_owned()));
            }
            // Set here and not on the loader, where it would overrule AWS_ENDPOINT_URL_SQS and the like.
            config = config.into_builder().endpoint_url(url).build();
        }
        Ok(Self { config, meter: Meter::default() })
    }

    /// The same access, whose requests are counted.
    #[must_use]
    pub fn measured_by(self, metrics: Metrics) -> Self {
        Self { meter: Meter(Some(metrics)), ..self }
    }

    pub(crate) fn meter(&self) -> Meter {
        self.meter.clone()
    }

    pub(crate) fn sqs(&self) -> aws_sdk_sqs::Client {
        let config = aws_sdk_sqs::config::Builder::from(&self.config).timeout_config(timeouts(POLL_TIMEOUT));
        aws_sdk_sqs::Client::from_conf(config.build())
    }

    pub(crate) fn auto_scaling(&self, region: &Region) -> aws_sdk_autoscaling::Client {
        let config = aws_sdk_autoscaling::config::Builder::from(&self.config).region(sdk_region(region));
        aws_sdk_autoscaling::Client::from_conf(config.build())
    }

    fn load_balancing(&self, region: &Region) -> aws_sdk_elasticloadbalancingv2::Client {
        let config =
            aws_sdk_elasticloadbalancingv2::config::Builder::from(&self.config).region(sdk_region(region));
        aws_sdk_elasticloadbalancingv2::Client::from_conf(config.build())
    }
}

/// The engine's way to AWS ports by account and Region.
#[derive(Debug)]
pub struct Sessions {
    access: Access,
    account_region: AccountRegion,
    scope: Option<GroupTag>,
    regions: Mutex<BTreeMap<Region, Ports>>,
}

impl Sessions {
    /// Sessions in the account of `account_region`, the queue's. Its Region stands in where an event names none.
    /// With `scope`, only groups with that tag are in scope.
    pub fn new(access: Access, account_region: AccountRegion, scope: Option<GroupTag>) -> Self {
        Self { access, account_region, scope, regions: Mutex::default() }
    }

    fn ports(&self, wanted: &AccountRegion) -> Result<Ports, Fault> {
        if let (Some(wanted), Some(own)) = (&wanted.account, &self.account_region.account)
            && wanted != own
        {
            return Err(Fault::Denied(format!(
                "calling AWS in account {wanted}: no role for it is configured, and the worker's own \
                 credentials are for account {own}"
            )));
        }
        let Some(region) = wanted.region.as_ref().or(self.account_region.region.as_ref()) else {
            return Err(Fault::Denied(
                "calling AWS: neither the event nor the queue names a Region".to_owned(),
            ));
        };
        // A client is made in microseconds and without a call, so the lock is never held for long.
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let ports = regions.entry(region.clone()).or_insert_with(|| Ports {
            groups: Arc::new(AutoScaling::new(
                self.access.auto_scaling(region),
                self.access.meter(),
                self.scope.clone(),
            )),
            targets: Arc::new(LoadBalancing::new(self.access.load_balancing(region), self.access.meter())),
        });
        Ok(ports.clone())
    }
}

impl engine::Sessions for Sessions {
    fn groups(&self, account_region: &AccountRegion) -> Result<Arc<dyn Groups>, Fault> {
        Ok(self.ports(account_region)?.groups)
    }

    fn targets(&self, account_region: &AccountRegion) -> Result<Arc<dyn Targets>, Fault> {
        Ok(self.ports(account_region)?.targets)
    }
}

/// The ports of one Region.
#[derive(Clone, Debug)]
struct Ports {
    groups: Arc<AutoScaling>,
    targets: Arc<LoadBalancing>,
}

/// Named and not "latest", so that an update of the SDK changes no defaults behind our back.
fn behaviour() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

fn sdk_region(region: &Region) -> aws_config::Region {
    aws_config::Region::new(region.as_str().to_owned())
}

fn timeouts(read: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(read).build()
}

/// Three tries to send a SYN, as the SDK's own default of 3.1 s has it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A backstop: the engine gives every call its own, shorter time.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Longer than the longest long poll (20 s), so that a dead connection ends but a quiet queue does not.
const POLL_TIMEOUT: Duration = Duration::from_secs(30);
/// Asking the metadata service in vain takes 1 s to connect or 1 s to read, a role's STS call a few
/// hundred milliseconds. Below the engine's 10 s for a call, so that its text still says why.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(6);

#[cfg(test)]
mod tests;
