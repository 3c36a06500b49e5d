//! Decides which request is next: four priority levels by their weight, and the flows of a level in turn. No I/O here.

use std::collections::{BTreeMap, VecDeque};

use prometheus_client::encoding::EncodeLabelValue;

/// The priority level of a call, by its purpose. The highest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
pub enum Priority {
    /// Stops a run, or lets a deletion proceed.
    Stop,
    /// Starts a run, or does something else that a person waits for.
    Start,
    /// Polls runs that have not ended.
    Watch,
    /// Detects changes that somebody may have made at the API.
    Drift,
}

impl Priority {
    /// All of them, the highest first.
    pub const ALL: [Self; 4] = [Self::Stop, Self::Start, Self::Watch, Self::Drift];
}

/// How many consecutive permits others may get while a priority level waits: each level gets at least a tenth.
const PASSED_OVER: u32 = 9;

/// Queued requests, each with a unique key.
#[derive(Debug)]
pub(super) struct Queue<K> {
    levels: [Waiting<K>; Priority::ALL.len()],
    /// The last number that was given to a request. The numbers order the requests of a flow.
    next: i64,
}

/// The requests of one priority level.
#[derive(Debug)]
struct Waiting<K> {
    /// The flows with requests, in the order in which they are served.
    flows: VecDeque<(String, BTreeMap<i64, K>)>,
    /// Permits that other levels got since this one got its last, while a request of this level waited.
    passed_over: u32,
}

/// The position of a request.
#[derive(Clone, Debug)]
pub(super) struct QueuePosition {
    pub priority: Priority,
    flow: String,
    number: i64,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { levels: std::array::from_fn(|_| Waiting { flows: VecDeque::new(), passed_over: 0 }), next: 0 }
    }
}

impl<K> Queue<K> {
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(|waiting| waiting.flows.is_empty())
    }

    /// Adds a request, behind the others of its flow.
    pub fn push(&mut self, priority: Priority, flow: &str, key: K) -> QueuePosition {
        self.next += 1;
        self.put(QueuePosition { priority, flow: flow.to_owned(), number: self.next }, key)
    }

    /// Puts a request back, before all others of its priority level.
    pub fn push_front(&mut self, position: &QueuePosition, key: K) -> QueuePosition {
        self.next += 1;
        let position = self.put(QueuePosition { number: -self.next, ..position.clone() }, key);
        let flows = &mut self.levels[position.priority as usize].flows;
        if let Some(flow) = flows.iter().position(|(flow, _)| *flow == position.flow).and_then(|at| flows.remove(at)) {
            flows.push_front(flow);
        }
        position
    }

    /// About how many requests are served before this one: those of higher priority levels, and those of its own level,
    /// where flows take turns.
    pub fn ahead(&self, position: &QueuePosition) -> usize {
        let level = position.priority as usize;
        let higher: usize = self.levels[..level].iter().flat_map(|it| &it.flows).map(|(_, flow)| flow.len()).sum();
        let flows = &self.levels[level].flows;
        let own = flows.iter().find(|(flow, _)| *flow == position.flow);
        let before = own.map_or(0, |(_, flow)| flow.range(..position.number).count());
        let others = flows.iter().filter(|(flow, _)| *flow != position.flow);
        higher + before + others.map(|(_, flow)| flow.len().min(before + 1)).sum::<usize>()
    }

    pub fn remove(&mut self, position: &QueuePosition) {
        let waiting = &mut self.levels[position.priority as usize];
        if let Some((_, flow)) = waiting.flows.iter_mut().find(|(flow, _)| *flow == position.flow) {
            flow.remove(&position.number);
        }
        waiting.tidy();
    }

    /// Takes the next request of those priority levels that `may` have a permit.
    pub fn pop(&mut self, may: impl Fn(Priority) -> bool) -> Option<K> {
        let priority = self.next_level(may)?;
        for other in Priority::ALL {
            let waiting = &mut self.levels[other as usize];
            waiting.passed_over =
                if other == priority || waiting.flows.is_empty() { 0 } else { waiting.passed_over + 1 };
        }
        let waiting = &mut self.levels[priority as usize];
        let (name, mut flow) = waiting.flows.pop_front()?;
        let first = flow.pop_first();
        waiting.flows.push_back((name, flow));
        waiting.tidy();
        first.map(|(_, key)| key)
    }

    /// Whether a request waits whose priority level `may` have a permit.
    pub fn has(&self, may: impl Fn(Priority) -> bool) -> bool {
        self.next_level(may).is_some()
    }

    /// The first request of each flow. The request that has waited longest is one of them.
    pub fn firsts(&self) -> impl Iterator<Item = &K> {
        self.levels.iter().flat_map(|waiting| &waiting.flows).filter_map(|(_, flow)| flow.values().next())
    }

    fn put(&mut self, position: QueuePosition, key: K) -> QueuePosition {
        let flows = &mut self.levels[position.priority as usize].flows;
        match flows.iter_mut().find(|(flow, _)| *flow == position.flow) {
            Some((_, flow)) => {
                flow.insert(position.number, key);
            }
            None => flows.push_back((position.flow.clone(), BTreeMap::from([(position.number, key)]))),
        }
        position
    }

    fn next_level(&self, may: impl Fn(Priority) -> bool) -> Option<Priority> {
        let waits = |priority: &Priority| may(*priority) && !self.levels[*priority as usize].flows.is_empty();
        let waiting = || Priority::ALL.into_iter().filter(waits);
        let passed_over = |priority: &Priority| self.levels[*priority as usize].passed_over;
        let starved = waiting().filter(|priority| passed_over(priority) >= PASSED_OVER).max_by_key(passed_over);
        starved.or_else(|| waiting().next())
    }
}

impl<K> Waiting<K> {
    fn tidy(&mut self) {
        self.flows.retain(|(_, flow)| !flow.is_empty());
        if self.flows.is_empty() {
            self.passed_over = 0;
        }
    }
}
