//! Decides which request is next: four priority levels by their weight, and the flows of a level in turn. No I/O here.

use std::collections::{BTreeMap, VecDeque};

use prometheus_client::encoding::EncodeLabelValue;

/// The priority level of a call, by its purpose. The highest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
pub enum Class {
    /// Stops a run, or lets a deletion proceed.
    Stop,
    /// Starts a run, or does something else that a person waits for.
    Start,
    /// Polls runs that have not ended.
    Watch,
    /// Detects changes that somebody may have made at the API.
    Drift,
}

impl Class {
    /// All of them, the highest first.
    pub const ALL: [Self; 4] = [Self::Stop, Self::Start, Self::Watch, Self::Drift];
}

/// How many consecutive permits others may get while a priority level waits: each level gets at least a tenth.
const PASSED_OVER: u32 = 9;

/// Queued requests, each with a unique key.
#[derive(Debug)]
pub(super) struct Queue<K> {
    classes: [Waiting<K>; Class::ALL.len()],
    /// The last number that was given to a request. The numbers order the requests of a flow.
    next: i64,
}

/// The requests of one priority level.
#[derive(Debug)]
struct Waiting<K> {
    /// The flows with requests, in the order in which they are served.
    lanes: VecDeque<(String, BTreeMap<i64, K>)>,
    /// Permits that other levels got since this one got its last, while a request of this level waited.
    passed_over: u32,
}

/// The position of a request.
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

    /// Adds a request, behind the others of its flow.
    pub fn push(&mut self, class: Class, lane: &str, key: K) -> Spot {
        self.next += 1;
        self.put(Spot { class, lane: lane.to_owned(), number: self.next }, key)
    }

    /// Puts a request back, before all others of its priority level.
    pub fn push_front(&mut self, spot: &Spot, key: K) -> Spot {
        self.next += 1;
        let spot = self.put(Spot { number: -self.next, ..spot.clone() }, key);
        let lanes = &mut self.classes[spot.class as usize].lanes;
        if let Some(lane) = lanes.iter().position(|(lane, _)| *lane == spot.lane).and_then(|at| lanes.remove(at)) {
            lanes.push_front(lane);
        }
        spot
    }

    pub fn remove(&mut self, spot: &Spot) {
        let waiting = &mut self.classes[spot.class as usize];
        if let Some((_, lane)) = waiting.lanes.iter_mut().find(|(lane, _)| *lane == spot.lane) {
            lane.remove(&spot.number);
        }
        waiting.tidy();
    }

    /// Takes the next request of those priority levels that `may` have a permit.
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

    /// Whether a request waits whose priority level `may` have a permit.
    pub fn has(&self, may: impl Fn(Class) -> bool) -> bool {
        self.next_class(may).is_some()
    }

    /// The first request of each flow. The request that has waited longest is one of them.
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
