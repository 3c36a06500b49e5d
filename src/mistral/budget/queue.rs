//! Who is next: four classes by their weight, and the lanes of a class in turn. No I/O here.

use std::collections::{BTreeMap, VecDeque};

use prometheus_client::encoding::EncodeLabelValue;

/// What a call is for. The first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
pub enum Class {
    /// Stops a run, or lets something go.
    Stop,
    /// Starts a run, or does something else that a person waits for.
    Start,
    /// Looks at runs that go on.
    Watch,
    /// Looks for changes that somebody may have made at the API.
    Drift,
}

impl Class {
    /// All of them, the first first.
    pub const ALL: [Self; 4] = [Self::Stop, Self::Start, Self::Watch, Self::Drift];
}

/// So many turns in a row may others have while a class waits: it gets a tenth at least.
const PASSED_OVER: u32 = 9;

/// Those who wait, each known by a key of its own.
#[derive(Debug)]
pub(super) struct Queue<K> {
    classes: [Waiting<K>; Class::ALL.len()],
    /// Where the next stands in its lane.
    next: i64,
}

/// Those of one class.
#[derive(Debug)]
struct Waiting<K> {
    /// By lane, in the order of their turns, each with somebody in it.
    lanes: VecDeque<(String, BTreeMap<i64, K>)>,
    /// Turns that others had since it had one, while somebody waited.
    passed_over: u32,
}

/// Where somebody stands.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub class: Class,
    lane: String,
    number: i64,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { classes: std::array::from_fn(|_| Waiting { lanes: VecDeque::new(), passed_over: 0 }), next: 0 }
    }
}

impl<K> Queue<K> {
    pub fn is_empty(&self) -> bool {
        self.classes.iter().all(|waiting| waiting.lanes.is_empty())
    }

    /// Somebody comes, behind the others of its lane.
    pub fn push(&mut self, class: Class, lane: &str, key: K) -> Spot {
        self.next += 1;
        self.put(Spot { class, lane: lane.to_owned(), number: self.next }, key)
    }

    /// Somebody comes back, before all others.
    pub fn push_front(&mut self, spot: &Spot, key: K) -> Spot {
        self.next += 1;
        let spot = self.put(Spot { number: -self.next, ..spot.clone() }, key);
        let lanes = &mut self.classes[spot.class as usize].lanes;
        if let Some(lane) = lanes.iter().position(|(lane, _)| *lane == spot.lane).and_then(|at| lanes.remove(at)) {
            lanes.push_front(lane);
        }
        spot
    }

    /// Somebody goes.
    pub fn remove(&mut self, spot: &Spot) {
        let waiting = &mut self.classes[spot.class as usize];
        if let Some((_, lane)) = waiting.lanes.iter_mut().find(|(lane, _)| *lane == spot.lane) {
            lane.remove(&spot.number);
        }
        waiting.tidy();
    }

    /// Who is next of those whose class may have a turn.
    pub fn pop(&mut self, may: impl Fn(Class) -> bool) -> Option<K> {
        let class = self.next_class(may)?;
        for other in Class::ALL {
            let waiting = &mut self.classes[other as usize];
            waiting.passed_over = if other == class || waiting.lanes.is_empty() { 0 } else { waiting.passed_over + 1 };
        }
        let waiting = &mut self.classes[class as usize];
        let (name, mut lane) = waiting.lanes.pop_front()?;
        let first = lane.pop_first();
        waiting.lanes.push_back((name, lane));
        waiting.tidy();
        first.map(|(_, key)| key)
    }

    /// Whether somebody waits whose class may have a turn.
    pub fn has(&self, may: impl Fn(Class) -> bool) -> bool {
        self.next_class(may).is_some()
    }

    /// The first of each lane: whoever has waited longest is one of them.
    pub fn firsts(&self) -> impl Iterator<Item = &K> {
        self.classes.iter().flat_map(|waiting| &waiting.lanes).filter_map(|(_, lane)| lane.values().next())
    }

    fn put(&mut self, spot: Spot, key: K) -> Spot {
        let lanes = &mut self.classes[spot.class as usize].lanes;
        match lanes.iter_mut().find(|(lane, _)| *lane == spot.lane) {
            Some((_, lane)) => {
                lane.insert(spot.number, key);
            }
            None => lanes.push_back((spot.lane.clone(), BTreeMap::from([(spot.number, key)]))),
        }
        spot
    }

    fn next_class(&self, may: impl Fn(Class) -> bool) -> Option<Class> {
        let waits = |class: &Class| may(*class) && !self.classes[*class as usize].lanes.is_empty();
        let waiting = || Class::ALL.into_iter().filter(waits);
        let passed_over = |class: &Class| self.classes[*class as usize].passed_over;
        let starved = waiting().filter(|class| passed_over(class) >= PASSED_OVER).max_by_key(passed_over);
        starved.or_else(|| waiting().next())
    }
}

impl<K> Waiting<K> {
    fn tidy(&mut self) {
        self.lanes.retain(|(_, lane)| !lane.is_empty());
        if self.lanes.is_empty() {
            self.passed_over = 0;
        }
    }
}
