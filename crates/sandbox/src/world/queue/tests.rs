use super::*;
use crate::Delays;

const NAME: &str = "offramp";

fn world() -> World {
    let mut world = World::new(Timestamp::from_millis(1_000_000), Delays::demo(), 7);
    world.create_event_queue(NAME, 3);
    world
}

fn send(world: &mut World, body: &str) {
    world.send_message(NAME, body, BTreeMap::new(), Duration::ZERO).unwrap();
}

fn receive(world: &mut World) -> Vec<Received> {
    world.receive_messages(NAME, 10, Some(Duration::from_secs(30))).unwrap()
}

fn pass(world: &mut World, seconds: u64) {
    world.advance(world.now() + Duration::from_secs(seconds));
}

#[test]
fn a_received_message_is_hidden_until_its_visibility_timeout_is_over() {
    let mut world = world();
    send(&mut world, "a");
    let first = receive(&mut world).remove(0);
    assert_eq!(first.message.receive_count, 1);
    assert_eq!(world.queues.get(NAME).unwrap().depth(world.now()), (0, 1));
    pass(&mut world, 29);
    assert!(receive(&mut world).is_empty());
    pass(&mut world, 1);
    let second = receive(&mut world).remove(0);
    assert_eq!(second.message.id, first.message.id);
    assert_eq!(second.message.receive_count, 2);
    assert_ne!(second.receipt, first.receipt, "each delivery has its own receipt");
    assert_eq!(second.message.first_received, first.message.first_received);
}

#[test]
fn long_polls_are_woken_when_a_message_becomes_visible_again() {
    let mut world = world();
    send(&mut world, "a");
    receive(&mut world);
    assert_eq!(world.next_due(), Some(world.now() + Duration::from_secs(30)));
}

#[test]
fn messages_come_oldest_first_and_at_most_as_many_as_asked_for() {
    let mut world = world();
    for body in ["a", "b", "c"] {
        send(&mut world, body);
    }
    let bodies: Vec<String> = world
        .receive_messages(NAME, 2, None)
        .unwrap()
        .into_iter()
        .map(|received| received.message.body)
        .collect();
    assert_eq!(bodies, ["a", "b"]);
}

#[test]
fn zero_visibility_hands_a_message_back_and_ends_the_flight() {
    let mut world = world();
    send(&mut world, "a");
    let receipt = receive(&mut world).remove(0).receipt;
    world.change_visibility(NAME, &receipt, Duration::ZERO).unwrap();
    assert!(world.has_visible(NAME).unwrap());
    let again = world.change_visibility(NAME, &receipt, Duration::from_secs(10));
    assert_eq!(again, Err(Refusal::NotInFlight));
}

#[test]
fn a_change_of_visibility_after_the_timeout_works_when_nobody_else_received_it() {
    let mut world = world();
    send(&mut world, "a");
    let receipt = receive(&mut world).remove(0).receipt;
    pass(&mut world, 31);
    world.change_visibility(NAME, &receipt, Duration::from_secs(60)).unwrap();
    assert!(!world.has_visible(NAME).unwrap());
}

#[test]
fn visibility_ends_12_hours_after_the_receipt() {
    let mut world = world();
    send(&mut world, "a");
    let receipt = receive(&mut world).remove(0).receipt;
    world.change_visibility(NAME, &receipt, VISIBILITY_LIMIT).unwrap();
    pass(&mut world, 1);
    let late = world.change_visibility(NAME, &receipt, VISIBILITY_LIMIT);
    assert_eq!(late, Err(Refusal::BeyondLimit));
    world.change_visibility(NAME, &receipt, VISIBILITY_LIMIT - Duration::from_secs(1)).unwrap();
}

#[test]
fn an_old_receipt_deletes_nothing_and_says_success() {
    let mut world = world();
    send(&mut world, "a");
    let old = receive(&mut world).remove(0).receipt;
    pass(&mut world, 30);
    let new = receive(&mut world).remove(0).receipt;
    assert_eq!(world.change_visibility(NAME, &old, Duration::from_secs(5)), Err(Refusal::NotInFlight));
    world.delete_message(NAME, &old).unwrap();
    assert_eq!(world.queues.get(NAME).unwrap().messages().count(), 1);
    world.delete_message(NAME, &new).unwrap();
    assert_eq!(world.queues.get(NAME).unwrap().messages().count(), 0);
    world.delete_message(NAME, &new).unwrap();
    assert_eq!(world.delete_message(NAME, "nonsense"), Err(Refusal::NotAReceipt));
}

#[test]
fn the_newest_receipt_deletes_also_after_the_timeout() {
    let mut world = world();
    send(&mut world, "a");
    let receipt = receive(&mut world).remove(0).receipt;
    pass(&mut world, 31);
    world.delete_message(NAME, &receipt).unwrap();
    assert!(!world.has_visible(NAME).unwrap());
}

#[test]
fn a_message_received_max_receive_count_times_goes_to_the_dead_letter_queue() {
    let mut world = world();
    send(&mut world, "a");
    let id = receive(&mut world).remove(0).message.id;
    for _ in 0..2 {
        pass(&mut world, 30);
        assert_eq!(receive(&mut world).len(), 1);
    }
    pass(&mut world, 30);
    assert!(receive(&mut world).is_empty());
    let dead: Vec<&Stored> = world.queues.get("offramp-dlq").unwrap().messages().collect();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].id, id);
}

#[test]
fn a_standard_queue_may_deliver_twice() {
    let mut world = world();
    send(&mut world, "a");
    world.queues.duplicate_next = 1;
    let (first, second) = (receive(&mut world), receive(&mut world));
    assert_eq!(first[0].message.id, second[0].message.id);
    assert!(receive(&mut world).is_empty());
}

#[test]
fn a_delayed_message_and_a_purge() {
    let mut world = world();
    world.send_message(NAME, "a", BTreeMap::new(), Duration::from_secs(5)).unwrap();
    assert!(!world.has_visible(NAME).unwrap());
    pass(&mut world, 5);
    assert!(world.has_visible(NAME).unwrap());
    world.queues.get_mut(NAME).unwrap().purge();
    assert!(!world.has_visible(NAME).unwrap());
    assert_eq!(world.has_visible("nowhere"), Err(Refusal::NoQueue));
}

#[test]
fn events_reach_the_queue_after_their_delay_if_a_rule_matches() {
    let mut world = world();
    let detail = serde_json::json!({ "instance-id": "i-0b1c2d3e4f5061728" });
    world.emit_event("aws.ec2", "EC2 Something Else", &[], &detail);
    world.events.repeat_next = 1;
    world.emit_event("aws.ec2", crate::world::events::REBALANCE, &["arn".to_owned()], &detail);
    world.events.lose_next = 1;
    world.emit_event("aws.ec2", crate::world::events::REBALANCE, &[], &detail);
    assert!(!world.has_visible(NAME).unwrap());
    world.advance(world.now() + world.delays.event);
    let received = receive(&mut world);
    assert_eq!(received.len(), 2, "one event in two copies, one lost, one not matched");
    assert_eq!(received[0].message.body, received[1].message.body);
    let body: serde_json::Value = serde_json::from_str(&received[0].message.body).unwrap();
    assert_eq!(body["time"], "1970-01-01T00:16:40Z");
    assert_eq!(body["account"], "111122223333");
    assert_eq!(body["region"], "eu-west-1");
    assert_eq!(body["resources"][0], "arn");
    assert_eq!(body["detail"], detail);
}

#[test]
fn a_hook_notifies_the_queue_or_a_topic_itself() {
    use crate::world::events::{Route, TERMINATE_ACTION};
    let mut world = world();
    let detail = serde_json::json!({ "EC2InstanceId": "i-0b1c2d3e4f5061728" });
    let mut sent = |route: Route| -> serde_json::Value {
        world.events.route = route;
        world.emit_event("aws.autoscaling", TERMINATE_ACTION, &[], &detail);
        world.advance(world.now() + world.delays.event);
        serde_json::from_str(&receive(&mut world)[0].message.body).unwrap()
    };
    assert_eq!(sent(Route::EventBridge)["detail"], detail);
    let bare = sent(Route::Queue);
    assert_eq!(
        (&bare["EC2InstanceId"], &bare["AccountId"]),
        (&detail["EC2InstanceId"], &"111122223333".into())
    );
    let wrapped = sent(Route::Topic);
    assert_eq!(wrapped["Type"], "Notification");
    assert!(wrapped["Message"].as_str().unwrap().contains("AccountId"));
}
