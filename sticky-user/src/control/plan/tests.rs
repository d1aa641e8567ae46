use super::*;
use proptest::prelude::*;

const UP: u32 = Backend::ALIVE | Backend::KEEPS;

fn want(service: u64, backends: &[(u64, u32)], port: u16) -> DesiredService {
    DesiredService {
        identity: service,
        id: service.to_string().into(),
        ttl: 10,
        prefix: IpPrefix { v4: 32, v6: 64 },
        interval: 0,
        rules: Vec::new(),
        backends: backends
            .iter()
            .map(|(id, weight)| DesiredBackend {
                identity: *id,
                id: id.to_string(),
                member: id.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                v4: [*id as u8; 4],
                v6: [0; 4],
                ifindex_v4: 1,
                ifindex_v6: 0,
                flags: UP,
                weight: *weight,
            })
            .collect(),
        frontends: vec![(
            FrontendKey::V4(FrontendKeyV4 {
                addr: [198, 51, 100, 1],
                port: port.to_be_bytes(),
                proto: 6,
                zero: 0,
            }),
            [31, 144],
        )],
    }
}

fn build(now: u32) -> Build {
    Build { table_size: 251, now, rekeyed: false }
}

fn step(loaded: &Loaded, services: Vec<DesiredService>, now: u32) -> (Plan, Loaded) {
    let wanted: Vec<_> = services.into_iter().map(Arc::new).collect();
    diff(loaded, Wanted::All(&wanted), build(now)).unwrap()
}

/// The maps, as the plan's steps leave them, with a check after each that nothing points at what is not there.
#[derive(Default)]
struct Maps {
    backends: HashMap<u32, Backend>,
    tables: HashMap<u32, Arc<[Slot]>>,
    frontends: HashMap<FrontendKey, Frontend>,
}

impl Maps {
    fn apply(&mut self, plan: &Plan) {
        for (_, b) in &plan.backends {
            self.backends.insert(BackendId(b.id).index(), *b);
            self.check();
        }
        for (service, slots) in &plan.tables {
            self.tables.insert(*service, Arc::clone(slots));
            self.check();
        }
        for (key, value) in &plan.frontends {
            self.frontends.insert(*key, *value);
            self.check();
        }
        for key in &plan.gone_frontends {
            self.frontends.remove(key);
        }
        for service in &plan.gone_tables {
            self.tables.remove(service);
            self.check();
        }
        for b in &plan.retired {
            self.backends.insert(BackendId(b.id).index(), *b);
            self.check();
        }
    }

    fn check(&self) {
        for f in self.frontends.values() {
            let table = self.tables.get(&f.service).expect("a frontend's service has a table");
            for slot in table.iter() {
                let Some(index) = slot.index() else { continue };
                let b = self.backends.get(&index).expect("a slot's backend is there");
                assert!(b.flags & Backend::ALIVE != 0 && b.service == f.service);
            }
        }
    }
}

#[test]
fn first_tables_are_settled_and_unchanged_ones_cost_nothing() {
    let (plan, loaded) = step(&Loaded::default(), vec![want(1, &[(10, 1), (11, 1)], 80)], 5);
    assert_eq!((plan.backends.len(), plan.tables.len(), plan.frontends.len()), (2, 1, 1));
    assert!(plan.tables[0].1.iter().all(|s| !s.unsettled() && s.index().is_some()));
    let (again, same) = step(&loaded, vec![want(1, &[(10, 1), (11, 1)], 80)], 6);
    assert!(again.is_empty());
    assert_eq!(same, loaded);
}

#[test]
fn moved_slots_are_marked_and_stay_so() {
    let (_, one) = step(&Loaded::default(), vec![want(1, &[(10, 1), (11, 1)], 80)], 5);
    let (plan, two) = step(&one, vec![want(1, &[(10, 1), (11, 1), (12, 1)], 80)], 6);
    let before = &one.services[&1].slots;
    let moved =
        before.iter().zip(plan.tables[0].1.iter()).filter(|(b, a)| b.index() != a.index()).count();
    assert_eq!(plan.moved[&1], moved);
    assert!(moved > 251 / 4);
    for (b, a) in before.iter().zip(plan.tables[0].1.iter()) {
        assert_eq!(a.unsettled(), b.index() != a.index());
    }
    let (plan, _) = step(&two, vec![want(1, &[(10, 1), (11, 1)], 80)], 7);
    assert_eq!(
        plan.tables[0].1.iter().filter(|s| s.unsettled()).count(),
        moved,
        "back again, but clients came meanwhile"
    );
}

#[test]
fn a_backend_out_of_the_table_still_lives() {
    let (_, one) = step(&Loaded::default(), vec![want(1, &[(10, 1), (11, 1)], 80)], 5);
    let (plan, two) = step(&one, vec![want(1, &[(10, 1), (11, 0)], 80)], 6);
    assert!(plan.retired.is_empty());
    assert_eq!(two.services[&1].backends.len(), 2);
    let gone = BackendId(two.services[&1].backends[&11].id).index();
    assert!(plan.tables[0].1.iter().all(|s| s.index() != Some(gone)));
}

#[test]
fn an_index_is_used_again_later_with_another_generation() {
    let (_, one) = step(&Loaded::default(), vec![want(1, &[(10, 1)], 80)], 5);
    let (plan, two) = step(&one, vec![want(1, &[(11, 1)], 80)], 6);
    assert_eq!(plan.retired.len(), 1);
    assert_eq!(BackendId(two.services[&1].backends[&11].id).index(), 1, "index 0 is still cooling");
    let (_, three) = step(&two, vec![want(1, &[(12, 1)], 80)], 60);
    let id = BackendId(three.services[&1].backends[&12].id);
    assert_eq!((id.index(), id.generation()), (0, 2));
}

#[test]
fn another_hash_key_asks_every_record() {
    let (_, one) = step(&Loaded::default(), vec![want(1, &[(10, 1), (11, 1)], 80)], 5);
    let wanted = [Arc::new(want(1, &[(10, 1), (11, 1)], 80))];
    let (plan, _) = diff(&one, Wanted::All(&wanted), Build { rekeyed: true, ..build(6) }).unwrap();
    assert!(plan.tables[0].1.iter().all(|s| s.unsettled()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_sequence_reaches_what_is_desired(steps in proptest::collection::vec(
        proptest::collection::btree_map(0u64..4, proptest::collection::btree_map(0u64..12, 0u32..3, 0..6), 0..4), 1..8)) {
        let mut loaded = Loaded::default();
        let mut maps = Maps::default();
        for (now, services) in steps.iter().enumerate() {
            let services = services.iter().map(|(s, b)| {
                let b: Vec<_> = b.iter().map(|(i, w)| (s * 100 + i, *w)).collect();
                want(*s, &b, 80 + *s as u16)
            }).collect();
            let (plan, next) = step(&loaded, services, now as u32);
            maps.apply(&plan);
            prop_assert_eq!(&maps.frontends, &next.frontends);
            for s in next.services.values() {
                prop_assert_eq!(&maps.tables[&s.index], &s.slots);
                for (index, slots) in &*s.shares {
                    let its = s.slots.iter().filter(|slot| slot.index() == Some(*index));
                    prop_assert_eq!(its.count(), *slots as usize);
                }
                for b in s.backends.values() {
                    prop_assert_eq!(maps.backends[&BackendId(b.id).index()], *b);
                }
            }
            prop_assert_eq!(maps.tables.len(), next.services.len());
            let alive = maps.backends.values().filter(|b| b.flags != 0).count();
            prop_assert_eq!(alive, next.services.values().map(|s| s.backends.len()).sum::<usize>());
            loaded = next;
        }
    }
}

#[test]
fn a_frontend_changes_hands_and_leaves_nothing() {
    let one = |port| want(1, &[(10, 1)], port);
    let two = |port| want(2, &[(20, 1)], port);
    let (_, first) = step(&Loaded::default(), vec![one(80)], 5);
    let (plan, both) = step(&first, vec![one(81), two(80)], 6);
    assert!(plan.gone_frontends.is_empty(), "the other service has it now");
    assert_eq!(plan.frontends.len(), 2);
    let (plan, last) = step(&both, vec![two(80)], 7);
    let (key, frontend) = last.frontends.iter().next().unwrap();
    assert_eq!((last.frontends.len(), frontend.service), (1, last.services[&2].index));
    assert!(plan.frontends.is_empty() && !plan.gone_frontends.contains(key));
    assert_eq!((plan.gone_frontends.len(), plan.gone_tables.len(), plan.retired.len()), (1, 1, 1));
}

#[test]
fn rules_go_with_their_service_and_what_was_adopted_without_one_goes() {
    let rule = Rule { addr: [0; 4], prefix: 0, admits: false };
    let guarded = || DesiredService { rules: vec![rule], ..want(1, &[(10, 1)], 80) };
    let (_, mut loaded) = step(&Loaded::default(), vec![guarded()], 5);
    assert_eq!(loaded.rules.len(), 1);
    loaded.rules.insert(900, vec![rule]);
    loaded.services.values_mut().for_each(|service| {
        let service = Arc::make_mut(service);
        (service.rules, service.wanted) = (0, None);
    });
    let (plan, adopted) = step(&loaded, vec![guarded()], 6);
    assert_eq!(plan.gone_rules, [(900, vec![rule])]);
    assert!(plan.rules.is_empty() && adopted.rules.len() == 1);
    let (plan, open) = step(&adopted, vec![want(1, &[(10, 1)], 80)], 7);
    assert_eq!((plan.gone_rules.len(), open.rules.len()), (1, 0));
}

#[test]
fn other_backends_of_one_service_leave_the_rest_as_it_is() {
    let all = |backends: &[(u64, u32)]| vec![want(1, &[(10, 1)], 80), want(2, backends, 81)];
    let (_, before) = step(&Loaded::default(), all(&[(20, 1)]), 5);
    let other = [Arc::new(want(2, &[(20, 1), (21, 2)], 81))];
    let (plan, after) = diff(&before, Wanted::Others(&other), build(6)).unwrap();
    assert_eq!((plan, after), step(&before, all(&[(20, 1), (21, 2)]), 6));
}
