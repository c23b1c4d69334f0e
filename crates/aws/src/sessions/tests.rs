use offramp_core::AccountId;
use offramp_engine::Sessions as _;

use super::*;
use crate::replay::{Replay, home, xml};

fn there(account: Option<&str>, region: Option<&str>) -> Home {
    Home { account: account.map(AccountId::from), region: region.map(Region::from) }
}

#[tokio::test]
async fn a_region_is_the_events_own_or_the_queues() {
    let empty = || xml("DescribeAutoScalingInstances", "<AutoScalingInstances/>");
    let replay = Replay::of([empty(), empty(), empty()]).await;
    let sessions = replay.sessions().await;
    for home in [
        there(None, None),
        there(Some("111122223333"), Some("eu-west-1")),
        there(Some("111122223333"), Some("us-gov-west-1")),
    ] {
        let id = offramp_core::InstanceId::parse("i-0b1c2d3e4f5061728").unwrap();
        sessions.groups(&home).unwrap().instances(&[id]).await.unwrap();
        sessions.targets(&home).unwrap();
    }
    let scopes: Vec<_> = replay
        .asked()
        .iter()
        .map(|asked| asked.authorization.split('/').nth(2).unwrap_or_default().to_owned())
        .collect();
    assert_eq!(scopes, ["eu-west-1", "eu-west-1", "us-gov-west-1"]);
    assert_eq!(sessions.regions.lock().unwrap().len(), 2, "clients are made once for each Region");
}

#[tokio::test]
async fn another_account_is_denied_by_name() {
    let replay = Replay::of([]).await;
    let sessions = replay.sessions().await;
    let denied = sessions.groups(&there(Some("444455556666"), None)).unwrap_err();
    let expect = "calling AWS in account 444455556666: no role for it is configured, and the worker's own \
                  credentials are for account 111122223333";
    assert_eq!(denied, Fault::Denied(expect.to_owned()));
    assert!(matches!(sessions.targets(&there(Some("444455556666"), None)), Err(Fault::Denied(_))));
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
    assert_eq!(home().region, Some(Region::new("eu-west-1")));
}

/// The variables of the environment are read by the same code as these lines of a profile, and a test
/// cannot set variables of its own process.
#[tokio::test]
async fn one_service_can_be_pointed_elsewhere() {
    let everywhere = Replay::of([]).await;
    let scaling = Replay::of([xml("DescribeAutoScalingInstances", "<AutoScalingInstances/>")]).await;
    let profile = format!(
        "[default]\nservices = here\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n\
         [services here]\nauto_scaling =\n  endpoint_url = {}\n",
        scaling.url
    );
    let files = aws_config::profile::ProfileFiles::builder()
        .with_contents(aws_config::profile::ProfileFileKind::Config, profile)
        .build();
    let credentials = aws_credential_types::Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .profile_files(files)
        .credentials_provider(credentials);
    let options =
        Options { region: Some(Region::new("eu-west-1")), endpoint_url: Some(everywhere.url.clone()) };
    let access = Access::load_from(loader, &options).await.unwrap();
    let sessions = Sessions::new(access, home(), None);
    let id = offramp_core::InstanceId::parse("i-0b1c2d3e4f5061728").unwrap();
    sessions.groups(&home()).unwrap().instances(&[id]).await.unwrap();
    assert_eq!((scaling.asked().len(), everywhere.asked().len()), (1, 0));
}
