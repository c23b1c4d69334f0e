//! An outcome says what happened (invariant 20).

use std::collections::BTreeMap;

use offramp_core::SpotAction;
use offramp_sandbox::fleet::{App, Pool};
use offramp_sandbox::{Delays, Fleet, World};

use super::reports::{answers, kafka, let_none_go, outcomes, scale_in, told, workers};
use super::script::{START, Scene, seconds};

fn spot(app: App) -> Scene {
    let pool = Pool { hooks: Vec::new(), ..Pool::spot("workers", 3) };
    Scene::new(Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(pool).app(app))
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_is_answered_with_a_pod_left_has_not_done_all_it_owed() {
    let mut scene = Scene::new(workers([kafka()]));
    scene.policy.hook_limit = seconds(300);
    let_none_go(&scene);
    scene.start_worker();
    scale_in(&mut scene);
    scene.pass(seconds(10)).await;
    scene.until_done(seconds(400)).await;
    let text = scene.transcript();
    assert!((answers(&mut scene), outcomes(&scene, "left_unfinished")) == (1, true), "{text}");
    assert!(text.contains("the hook is answered, and 1 pod and 0 targets left at its deadline"), "{text}");
    assert!(!outcomes(&scene, "left"), "{text}");
}

/// EC2 does not wait for it.
#[tokio::test(start_paused = true)]
async fn a_spot_instance_that_goes_with_a_pod_on_it_has_not_done_all_it_owed() {
    for (blocked, outcome) in [(true, "left_unfinished"), (false, "left")] {
        let mut scene = spot(kafka());
        if blocked {
            let_none_go(&scene);
        }
        scene.start_worker();
        let instance = scene.instances("workers").remove(0);
        scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
        scene.pass(seconds(10)).await;
        scene.until_done(seconds(400)).await;
        let text = scene.transcript();
        assert!(outcomes(&scene, outcome), "{text}");
        assert_eq!(text.contains("1 pod and 0 targets left at its deadline"), blocked, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_spot_notice_of_ten_minutes_ago_is_stale_and_does_nothing() {
    let mut scene = spot(App::new("web", 3));
    scene.start_worker();
    let instance = scene.instances("workers").remove(0);
    let body = format!(
        r#"{{"version":"0","id":"7bf73129-1428-4cd3-a780-95db273d1602","source":"aws.ec2",
        "detail-type":"EC2 Spot Instance Interruption Warning","account":"111122223333","region":"eu-west-1",
        "time":"2026-03-14T08:50:00Z","resources":[],
        "detail":{{"instance-id":"{instance}","instance-action":"terminate"}}}}"#
    );
    let send = |world: &mut World| world.send_message("offramp", &body, BTreeMap::new(), seconds(0));
    scene.sandbox.with(send).unwrap();
    scene.pass(seconds(10)).await;
    scene.until_done(seconds(120)).await;
    let text = scene.transcript();
    assert!(outcomes(&scene, "stale"), "{text}");
    assert!(scene.sandbox.peek(|world| told(world, "cordoned").is_none()), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_hook_of_ours_on_a_node_that_is_not_ours_is_left_alone_by_name() {
    let mut pool = Pool::new("workers", 3);
    pool.labels.insert("karpenter.sh/nodepool".to_owned(), "default".to_owned());
    let fleet = Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(pool).app(App::new("web", 3));
    let mut scene = Scene::new(fleet);
    scene.start_worker();
    scale_in(&mut scene);
    scene.pass(seconds(10)).await;
    scene.until_done(seconds(120)).await;
    let text = scene.transcript();
    assert!((answers(&mut scene), outcomes(&scene, "left_alone")) == (0, true), "{text}");
}
