use super::*;
use crate::world::balancers::TargetState;
use crate::world::cluster::Phase;

fn start() -> Timestamp {
    Timestamp::from_millis(1_774_000_000_000)
}

#[test]
fn everything_is_up_when_the_clock_reads_the_start() {
    let entrance = Entrance { attached: true, ..Entrance::new(30_080, 100.0) };
    let filled = Entrance::new(30_081, 100.0);
    for delays in [Delays::demo(), Delays::aws()] {
        let world = Fleet::new(start(), delays, 1)
            .cluster("blue")
            .pool(Pool::new("blue-web", 4))
            .pool(Pool::spot("blue-spot", 3))
            .app(App { entrance: Some(entrance.clone()), ..App::new("web", 9) })
            .app(App { entrance: Some(filled.clone()), ..App::new("api", 5) })
            .build();
        assert_eq!(world.now(), start());
        let cluster = &world.clusters[&ClusterName::new("blue")];
        assert_eq!(cluster.nodes.len(), 7);
        assert!(cluster.nodes.values().all(|node| node.ready));
        assert_eq!(cluster.pods.len(), 9 + 5 + 7);
        assert!(cluster.pods.values().all(|pod| pod.ready && pod.phase == Phase::Running));
        let groups: Vec<_> = world.balancers.all().collect();
        assert_eq!(groups.len(), 2);
        for group in groups {
            assert_eq!(group.targets.len(), 7, "{}", group.name);
            assert!(group.targets.values().all(|target| target.state == TargetState::Healthy));
        }
        assert!(world.story.is_empty());
    }
}

#[test]
fn the_same_seed_gives_the_same_world() {
    let world = |seed| {
        let fleet = Fleet::new(start(), Delays::demo(), seed).cluster("blue").pool(Pool::new("web", 3));
        format!("{:?}", fleet.app(App::new("web", 3)).build())
    };
    assert_eq!(world(1), world(1));
    assert_ne!(world(1), world(2));
}

#[test]
fn nothing_happens_by_itself_in_a_fleet_at_rest() {
    let mut world = Fleet::new(start(), Delays::demo(), 1)
        .cluster("blue")
        .pool(Pool::new("blue-web", 4))
        .app(App { entrance: Some(Entrance::new(30_080, 50.0)), ..App::new("web", 6) })
        .build();
    world.advance(start() + Duration::from_secs(3_600));
    assert_eq!(world.story, []);
    assert_eq!(world.traffic.lost(), 0.0);
    assert_eq!(world.traffic.served(), 50.0 * 3_600.0);
}
