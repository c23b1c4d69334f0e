use std::time::Duration;

use offramp_core::{HookName, Timestamp, Zone};
use offramp_engine::{Clock, Depth, Fault, Held, Queue, Receipt};

use super::*;
use crate::Delays;
use crate::faults::{Injected, Moment};
use crate::world::groups::{GroupSpec, Hook, Template};

const NAME: &str = "offramp";
const VISIBILITY: Duration = Duration::from_secs(30);

fn sandbox() -> (Sandbox, QueueDoor) {
    let epoch = Timestamp::from_millis(1_700_000_000_000);
    let mut world = World::new(epoch - Duration::from_secs(600), Delays::aws(), 7);
    world.create_event_queue(NAME, 100);
    world.create_group(GroupSpec {
        name: GroupName::new("blue"),
        min: 0,
        max: 5,
        desired: 1,
        hooks: vec![Hook::terminating("drain")],
        tags: BTreeMap::new(),
        target_groups: Vec::new(),
        capacity_rebalancing: false,
        template: Template {
            zones: vec![Zone::new("eu-west-1a")],
            spot: false,
            cluster: None,
            labels: BTreeMap::new(),
        },
    });
    world.advance(epoch);
    let sandbox = Sandbox::new(world, Clock::starting_at(epoch));
    let queue = QueueDoor::new(&sandbox, NAME);
    (sandbox, queue)
}

fn send(sandbox: &Sandbox, body: &str) {
    sandbox.with(|world| world.send_message(NAME, body, BTreeMap::new(), Duration::ZERO)).unwrap();
}

fn member(sandbox: &Sandbox) -> InstanceId {
    sandbox.peek(|world| world.instances.all().next().unwrap().id.clone())
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_when_a_message_comes_or_when_the_wait_is_over() {
    let (sandbox, queue) = sandbox();
    let started = sandbox.now();
    assert!(queue.receive(10, Duration::from_secs(5), VISIBILITY).await.unwrap().is_empty());
    assert_eq!(sandbox.now().since(started), Duration::from_secs(5));
    let sender = sandbox.clone();
    let (received, ()) = tokio::join!(queue.receive(10, Duration::from_secs(20), VISIBILITY), async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        send(&sender, "a");
    });
    assert_eq!(received.unwrap().len(), 1);
    assert_eq!(sandbox.now().since(started), Duration::from_secs(8));
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_sees_a_message_that_becomes_visible_again() {
    let (sandbox, queue) = sandbox();
    let running = sandbox.clone();
    send(&sandbox, "a");
    let first = queue.receive(10, Duration::ZERO, Duration::from_secs(10)).await.unwrap();
    let second = tokio::select! {
        second = queue.receive(10, Duration::from_secs(20), VISIBILITY) => second.unwrap(),
        () = running.run() => Vec::new(),
    };
    assert_eq!(second[0].id, first[0].id);
    assert_eq!(second[0].receive_count, 2);
    assert_eq!(queue.extend(&[first[0].receipt.clone()], VISIBILITY).await, [Ok(Held::Lost)]);
    assert_eq!(queue.extend(&[second[0].receipt.clone()], VISIBILITY).await, [Ok(Held::Extended)]);
    assert_eq!(
        queue.depth().await.unwrap(),
        Depth { waiting: 0, in_flight: 1, date: Some(sandbox.now().whole_second()) }
    );
}

#[tokio::test(start_paused = true)]
async fn two_long_polls_do_not_keep_each_other_awake() {
    let (sandbox, queue) = sandbox();
    let other = queue.clone();
    let wait = Duration::from_secs(20);
    let (one, two) = tokio::join!(queue.receive(1, wait, VISIBILITY), other.receive(1, wait, VISIBILITY));
    assert!(one.unwrap().is_empty() && two.unwrap().is_empty());
    assert_eq!(sandbox.peek(|world| world.calls["sqs.ReceiveMessage"]), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_long_poll_takes_no_message_along() {
    let (sandbox, queue) = sandbox();
    let poll = queue.receive(10, Duration::from_secs(20), VISIBILITY);
    assert!(tokio::time::timeout(Duration::from_secs(1), poll).await.is_err());
    send(&sandbox, "a");
    assert_eq!(
        queue.depth().await.unwrap(),
        Depth { waiting: 1, in_flight: 0, date: Some(sandbox.now().whole_second()) }
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_carries_the_body_and_the_reason() {
    let (sandbox, queue) = sandbox();
    send(&sandbox, "what is this");
    let message = queue.receive(1, Duration::ZERO, VISIBILITY).await.unwrap().remove(0);
    queue.dead_letter(&message, "unreadable").await.unwrap();
    sandbox.peek(|world| {
        let dead = world.queues.get("offramp-dlq").unwrap().messages().next().unwrap();
        assert_eq!(dead.body, "what is this");
        assert_eq!(dead.attributes["offramp.reason"].value, "unreadable");
    });
}

#[tokio::test(start_paused = true)]
async fn a_message_of_our_own_comes_back_from_the_queue_itself() {
    let (sandbox, queue) = sandbox();
    sandbox.with(|world| {
        world.faults.inject("sqs.SendMessageBatch", 1, Injected::Throttle);
        world.faults.inject("sqs.SendMessageBatch", 2, Injected::LostAnswer);
    });
    let send = async |body: &str| queue.send(&[body.to_owned()]).await.remove(0);
    assert!(matches!(send("lost").await, Err(Fault::Retry(_))));
    assert!(matches!(send("sent, and not known").await, Err(Fault::Retry(_))));
    assert_eq!(send("sent").await, Ok(()));
    let received = queue.receive(10, Duration::ZERO, VISIBILITY).await.unwrap();
    let bodies: Vec<_> = received.iter().map(|message| message.body.as_str()).collect();
    assert_eq!(bodies, ["sent, and not known", "sent"]);
    assert_eq!(sandbox.peek(|world| world.faults.writes()), 3, "a worker may die at each of them");
    let nowhere = QueueDoor::new(&sandbox, "none").send(&["a".to_owned()]).await;
    assert!(matches!(nowhere[..], [Err(Fault::Denied(_))]), "{nowhere:?}");
}

#[tokio::test(start_paused = true)]
async fn instances_out_of_service_are_listed_with_what_takes_them_away() {
    let (sandbox, _) = sandbox();
    let (id, group) = (member(&sandbox), GroupName::new("blue"));
    assert_eq!(sandbox.out_of_service().await, Ok(Vec::new()));
    assert_eq!(sandbox.terminations(&group).await, Ok(BTreeMap::new()));

    let began = sandbox.now();
    Groups::perform(&sandbox, &[GroupCall::TerminateThroughGroup(id.clone(), group.clone())]).await;
    let later = began + Duration::from_secs(2);
    sandbox.with(|world| world.advance(later));
    let states = sandbox.out_of_service().await.unwrap().into_iter().map(|(id, member)| (id, member.state));
    let states: BTreeMap<_, _> = states.collect();
    assert_eq!(states[&id], LifecycleState::TerminatingWait);
    assert_eq!(states.len(), 2, "and its replacement, which is launched");
    assert_eq!(sandbox.terminations(&group).await, Ok(BTreeMap::from([(id.clone(), began)])));
    assert_eq!(sandbox.terminations(&GroupName::new("none")).await, Ok(BTreeMap::new()));

    let key = HookKey { group: group.clone(), name: HookName::new("drain"), token: None };
    Groups::perform(&sandbox, &[GroupCall::CompleteHook(id, key)]).await;
    sandbox.with(|world| world.advance(later + Duration::from_secs(120)));
    assert_eq!(sandbox.out_of_service().await, Ok(Vec::new()));
    assert_eq!(sandbox.terminations(&group).await, Ok(BTreeMap::new()), "it is over");
}

#[tokio::test(start_paused = true)]
async fn looking_for_held_instances_may_fail_and_take_its_time() {
    let (sandbox, _) = sandbox();
    sandbox.with(|world| {
        world.faults.inject("autoscaling.DescribeAutoScalingGroups", 1, Injected::Denied);
        world.faults.inject("autoscaling.DescribeScalingActivities", 1, Injected::Error);
        let slow = Injected::Delay(Duration::from_secs(7));
        world.faults.inject("autoscaling.DescribeScalingActivities", 2, slow);
    });
    let group = GroupName::new("blue");
    assert!(matches!(sandbox.out_of_service().await, Err(Fault::Denied(_))));
    assert!(matches!(sandbox.terminations(&group).await, Err(Fault::Retry(_))));
    let before = sandbox.now();
    sandbox.terminations(&group).await.unwrap();
    assert_eq!(sandbox.now().since(before), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn terminate_wait_complete_through_the_ports() {
    let (sandbox, queue) = sandbox();
    let id = member(&sandbox);
    let group = GroupName::new("blue");
    let terminate = GroupCall::TerminateThroughGroup(id.clone(), group.clone());
    assert_eq!(Groups::perform(&sandbox, &[terminate]).await, [Ok(Outcome::Done)]);
    let message = queue.receive(1, Duration::from_secs(20), VISIBILITY).await.unwrap().remove(0);
    assert!(message.body.contains("LifecycleActionToken"));
    let seen = sandbox.instances(std::slice::from_ref(&id)).await.unwrap();
    assert_eq!(seen[&id].state, LifecycleState::TerminatingWait);
    let spec = sandbox.group(&group).await.unwrap().unwrap().terminate_hooks.remove(0);
    assert_eq!(spec.global_timeout, Duration::from_secs(48 * 3_600));
    let key = HookKey { group: group.clone(), name: HookName::new("drain"), token: None };
    let calls = [
        GroupCall::Detach(id.clone(), group.clone()),
        GroupCall::Heartbeat(id.clone(), key.clone()),
        GroupCall::CompleteHook(id.clone(), key.clone()),
        GroupCall::CompleteHook(id, key),
    ];
    let answers = Groups::perform(&sandbox, &calls).await;
    assert_eq!(answers, [Ok(Outcome::Done), Ok(Outcome::Done), Ok(Outcome::Done), Ok(Outcome::Gone)]);
    assert_eq!(sandbox.group(&GroupName::new("none")).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn ports_exist_for_the_sandbox_s_own_account_only() {
    let (sandbox, _) = sandbox();
    assert!(Sessions::groups(&sandbox, &AccountRegion::default()).is_ok());
    let elsewhere = AccountRegion { account: Some("444455556666".into()), region: None };
    assert!(matches!(Sessions::targets(&sandbox, &elsewhere), Err(Fault::Denied(_))));
}

#[tokio::test(start_paused = true)]
async fn injected_faults_hit_the_call_they_were_planned_for() {
    let (sandbox, queue) = sandbox();
    sandbox.with(|world| {
        let faults = &mut world.faults;
        faults.inject("sqs.ReceiveMessage", 1, Injected::Throttle);
        faults.inject("sqs.ReceiveMessage", 2, Injected::LostAnswer);
        faults.inject("sqs.DeleteMessageBatch", 1, Injected::Partial);
        faults.inject("sqs.GetQueueAttributes", 1, Injected::Delay(Duration::from_secs(7)));
    });
    for body in ["a", "b"] {
        send(&sandbox, body);
    }
    let receive = || queue.receive(10, Duration::ZERO, VISIBILITY);
    assert!(matches!(receive().await, Err(Fault::Retry(_))));
    assert_eq!(sandbox.peek(|world| world.has_visible(NAME)), Ok(true), "a throttled call does nothing");
    assert!(matches!(receive().await, Err(Fault::Retry(_))));
    assert_eq!(sandbox.peek(|world| world.has_visible(NAME)), Ok(false), "a lost answer hides messages");
    tokio::time::sleep(VISIBILITY).await;
    let receipts: Vec<Receipt> = receive().await.unwrap().into_iter().map(|m| m.receipt).collect();
    let deleted = queue.delete(&receipts).await;
    assert_eq!(deleted.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
    let before = sandbox.now();
    queue.depth().await.unwrap();
    assert_eq!(sandbox.now().since(before), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_crash_takes_effect_or_not_and_its_call_never_returns() {
    for (moment, left) in [(Moment::BeforeEffect, 1), (Moment::AfterEffect, 0)] {
        let (sandbox, queue) = sandbox();
        send(&sandbox, "a");
        let receipt = queue.receive(1, Duration::ZERO, VISIBILITY).await.unwrap().remove(0).receipt;
        let mut crashed = sandbox.with(|world| {
            world.faults.crash_at(1, moment);
            world.faults.crashed()
        });
        let receipts = [receipt];
        let died = tokio::select! {
            biased;
            _ = queue.delete(&receipts) => false,
            _ = crashed.wait_for(|crashed| *crashed) => true,
        };
        assert!(died, "{moment:?}");
        let messages = sandbox.peek(|world| world.queues.get(NAME).unwrap().messages().count());
        assert_eq!(messages, left, "{moment:?}");
        assert_eq!(queue.delete(&receipts).await, [Ok(())], "the next worker's calls work");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_fails_until_it_is_told_to_work() {
    let (sandbox, _) = sandbox();
    sandbox.with(|world| world.faults.always("autoscaling", Some(Injected::Denied)));
    for _ in 0..2 {
        assert!(matches!(Groups::instances(&sandbox, &[]).await, Err(Fault::Denied(_))));
    }
    sandbox.with(|world| world.faults.always("autoscaling", None));
    assert!(Groups::instances(&sandbox, &[]).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_stands_still_goes_on_later_and_others_do_not_wait() {
    let (sandbox, _) = sandbox();
    let (still, other) = (sandbox.for_worker(1), sandbox.for_worker(2));
    let until = sandbox.now() + Duration::from_secs(60);
    sandbox.with(|world| world.faults.pause(1, until));
    assert!(Groups::instances(&other, &[]).await.is_ok());
    assert!(sandbox.now() < until);
    assert!(Groups::instances(&still, &[]).await.is_ok());
    assert!(sandbox.now() >= until);
}
