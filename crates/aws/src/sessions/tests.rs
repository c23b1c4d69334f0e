use aws_credential_types::Credentials;
use offramp_core::AccountId;
use offramp_engine::Sessions as _;

use super::*;
use crate::open::DeadLetterPolicy;
use crate::queue::SqsQueue;
use crate::replay::{Replay, account_region, xml};

fn there(account: Option<&str>, region: Option<&str>) -> AccountRegion {
    AccountRegion { account: account.map(AccountId::from), region: region.map(Region::from) }
}

#[tokio::test]
async fn a_region_is_the_events_own_or_the_queues() {
    let empty = || xml("DescribeAutoScalingInstances", "<AutoScalingInstances/>");
    let replay = Replay::of([empty(), empty(), empty()]).await;
    let sessions = replay.sessions().await;
    for account_region in [
        there(None, None),
        there(Some("111122223333"), Some("eu-west-1")),
        there(Some("111122223333"), Some("us-gov-west-1")),
    ] {
        let id = offramp_core::InstanceId::parse("i-0b1c2d3e4f5061728").unwrap();
        sessions.groups(&account_region).unwrap().instances(&[id]).await.unwrap();
        sessions.targets(&account_region).unwrap();
    }
    let scopes: Vec<_> = replay
        .asked()
        .iter()
        .map(|asked| asked.authorization.split('/').nth(2).unwrap_or_default().to_owned())
        .collect();
    assert_eq!(scopes, ["eu-west-1", "eu-west-1", "us-gov-west-1"]);
    assert_eq!(sessions.regions.lock().unwrap().len(), 2, "clients are made once for each Region");
}

/// Report 25: an event of another account was forwarded to our queue. No call is made for it with credentials that are
/// for our own, and what is said names the account.
#[tokio::test]
async fn another_account_is_denied_by_name() {
    let replay = Replay::of([]).await;
    let sessions = replay.sessions().await;
    let denied = sessions.groups(&there(Some("999988887777"), None)).err();
    let expect = "calling AWS in account 999988887777: no role for it is configured, and the worker's own \
                  credentials are for account 111122223333";
    assert_eq!(denied, Some(Fault::Denied(expect.to_owned())));
    assert!(matches!(sessions.targets(&there(Some("999988887777"), None)), Err(Fault::Denied(_))));
    assert_eq!(replay.asked().len(), 0);
}

#[tokio::test]
async fn retries_of_the_sdk_are_off_and_times_are_bounded() {
    let replay = Replay::of([]).await;
    let access = replay.access().await;
    assert!(!access.config.retry_config().unwrap().has_retry());
    let sqs = access.sqs();
    let times = sqs.config().timeout_config().unwrap().clone();
    assert_eq!(times.connect_timeout(), Some(CONNECT_TIMEOUT));
    assert!(times.read_timeout().unwrap() > Duration::from_secs(20));
    assert_eq!(times.operation_timeout(), None);
    assert_eq!(account_region().region, Some(Region::new("eu-west-1")));
}

/// The variables of the environment are read by the same code as these lines of a profile, and a test
/// cannot set variables of its own process.
#[tokio::test]
#[expect(deprecated, reason = "the new names are in aws-runtime, which nothing else here needs")]
async fn one_service_can_be_pointed_elsewhere() {
    use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
    let everywhere = Replay::of([]).await;
    let arn = "arn:aws:sqs:eu-west-1:111122223333:notices";
    let queue = Replay::of([(200, format!(r#"{{"Attributes":{{"QueueArn":"{arn}"}}}}"#))]).await;
    let profile =
        format!("[default]\nservices = here\n[services here]\nsqs =\n  endpoint_url = {}\n", queue.url);
    let files = ProfileFiles::builder().with_contents(ProfileFileKind::Config, profile).build();
    let loader = aws_config::defaults(behaviour())
        .profile_files(files)
        .credentials_provider(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"));
    let options =
        Options { region: Some(Region::new("eu-west-1")), endpoint_url: Some(everywhere.url.clone()) };
    let access = Access::load_from(loader, &options).await.unwrap();
    SqsQueue::open(&access, "notices", DeadLetterPolicy::Optional).await.unwrap();
    assert_eq!((queue.asked().len(), everywhere.asked().len()), (1, 0));
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_is_not_tried_for_ever() {
    for url in ["nonsense", "ftp://127.0.0.1", ""] {
        let options = Options { region: Some(Region::new("eu-west-1")), endpoint_url: Some(url.to_owned()) };
        let refused = Access::load(&options).await.unwrap_err();
        assert!(matches!(&refused, OpenError::Invalid(text) if text.contains("http://")), "{refused:?}");
    }
}

#[tokio::test]
async fn a_sandbox_is_reached_with_credentials_of_its_own() {
    let replay = Replay::of([xml("DescribeAutoScalingInstances", "<AutoScalingInstances/>")]).await;
    let region = Region::new("eu-west-1");
    let sessions = Sessions::new(Access::sandbox(&replay.url, &region), account_region(), None);
    let id = offramp_core::InstanceId::parse("i-0b1c2d3e4f5061728").unwrap();
    sessions.groups(&account_region()).unwrap().instances(&[id]).await.unwrap();
    let asked = replay.asked();
    assert!(asked[0].authorization.contains("Credential=sandbox/"), "{}", asked[0].authorization);
}
