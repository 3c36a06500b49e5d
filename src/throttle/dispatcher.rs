//! Decides which caller gets the next permit, from the bucket, the queue and the calls in flight. There is no I/O here, and
//! callers pass in the time.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::queue::{Priority, Queue, QueuePosition};

/// The most permits at a time: ten thousand starts must not open ten thousand connections.
pub const PERMITS: usize = 128;
/// Permits that only stops may use: slow calls of other kinds must not hold all of them.
const FOR_STOPS: usize = 8;
/// The most permits of any one priority level except stops: runs are polled even while a thousand starts wait.
pub(super) const PER_LEVEL: usize = 96;
/// How long a granted permit is kept for the notified requester.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(10);
/// A request that waits longer than this waits long.
const LONG: Duration = Duration::from_secs(10);
/// How long after its last sign saturation ends. Saturation that returns within a minute or two is still the same.
const CALM: Duration = Duration::from_secs(120);

/// A requester of permits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requester {
    /// The flow of a Workspace, or one for calls on behalf of several. The flows of a priority level are served in
    /// turn.
    pub flow: String,
    /// What wants to call. An object is in the queue at most once.
    pub object: String,
}

/// Why calls wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saturation {
    /// The API has refused calls because there were too many.
    Refused,
    /// More calls are requested than the limit allows.
    Queued,
}

/// Where a request stands in the queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// About how many requests are served before it.
    pub ahead: usize,
    /// The highest rate, in calls per second.
    pub limit: f64,
    /// The present rate, which is lower after the API has refused calls.
    pub rate: f64,
}

/// The outcome of trying to grant a permit.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// This object is granted a permit.
    Permit(String),
    /// No permit can be granted before this time.
    At(Instant),
    /// No permit can be granted before another one is returned, or a caller is no longer busy.
    Full,
    /// No request is queued.
    Idle,
}

/// The state of one key's calls. `W` is the handle by which a waiting caller is notified.
#[derive(Debug)]
pub(super) struct Dispatcher<W> {
    bucket: Bucket,
    queue: Queue<String>,
    entries: HashMap<String, Entry<W>>,
    /// Until when a granted permit is kept for which object, in this order. Some objects may have taken theirs already.
    kept: VecDeque<(Instant, String)>,
    /// Permits that are held or kept for an object, by priority level.
    permits: [usize; Priority::ALL.len()],
    /// When requests first and last waited long.
    long: Option<(Instant, Instant)>,
    /// When the API's refusals first and last slowed the bucket.
    refused: Option<(Instant, Instant)>,
}

#[derive(Debug)]
struct Entry<W> {
    position: QueuePosition,
    since: Instant,
    kept_until: Option<Instant>,
    /// The caller still does something else, so it cannot take a permit yet.
    busy: bool,
    /// A permit came too early for a busy caller. The request is not in the queue, but keeps its place.
    set_aside: bool,
    waiter: W,
}

impl<W> Dispatcher<W> {
    pub fn new(limit: f64, now: Instant) -> Self {
        let bucket = Bucket::new(limit, now);
        Self {
            bucket,
            queue: Queue::default(),
            entries: HashMap::new(),
            kept: VecDeque::new(),
            permits: [0; Priority::ALL.len()],
            long: None,
            refused: None,
        }
    }

    pub fn bucket(&mut self) -> &mut Bucket {
        &mut self.bucket
    }

    /// The number of queued objects and of notified ones that have not taken their permits yet.
    pub fn waiting(&self) -> usize {
        self.entries.len()
    }

    /// The number of permits that are held or kept for an object.
    pub fn permits(&self) -> usize {
        self.permits.iter().sum()
    }

    /// Requests a permit, and returns one if it is free. If not, the caller is queued at the highest priority level
    /// that it has requested. A permit comes with one token.
    pub fn ask(
        &mut self,
        priority: Priority,
        requester: &Requester,
        now: Instant,
        waiter: impl FnOnce() -> W,
    ) -> Option<Asked<W>> {
        self.expire(now);
        if let Some(entry) = self.entries.get_mut(&requester.object) {
            if std::mem::take(&mut entry.set_aside) {
                entry.position = self.queue.push_front(&entry.position, requester.object.clone());
            }
            if entry.kept_until.is_some() {
                let entry = self.entries.remove(&requester.object)?;
                return Some(Asked {
                    priority: entry.position.priority,
                    waited: now.duration_since(entry.since),
                    waiter: Some(entry.waiter),
                });
            }
            if priority < entry.position.priority {
                self.queue.remove(&entry.position);
                entry.position = self.queue.push(priority, &requester.flow, requester.object.clone());
                entry.waiter = waiter();
            }
            return None;
        }
        // Requests whose priority level has no permit left do not block the others.
        let nobody_before = !self.queue.has(|priority| self.has_room_for(priority));
        if nobody_before && self.has_room_for(priority) && self.bucket.take(now).is_ok() {
            self.permits[priority as usize] += 1;
            return Some(Asked { priority, waited: Duration::ZERO, waiter: None });
        }
        let position = self.queue.push(priority, &requester.flow, requester.object.clone());
        let entry = Entry { position, since: now, kept_until: None, busy: false, set_aside: false, waiter: waiter() };
        self.entries.insert(requester.object.clone(), entry);
        None
    }

    /// Grants the next permit. It is kept for [`KEPT_FOR`].
    pub fn next(&mut self, now: Instant) -> Next {
        self.expire(now);
        if self.queue.is_empty() {
            let is_set_aside = self.entries.values().any(|entry| entry.set_aside);
            return if is_set_aside { Next::Full } else { Next::Idle };
        }
        let room = Priority::ALL.map(|priority| self.has_room_for(priority));
        let may = |priority: Priority| room[priority as usize];
        if !self.queue.has(may) {
            return self.kept.front().map_or(Next::Full, |(until, _)| Next::At(*until));
        }
        if let Err(at) = self.bucket.take(now) {
            return Next::At(at);
        }
        let next = self.queue.pop(may);
        match next.and_then(|object| self.entries.get_mut(&object).map(|entry| (object, entry))) {
            Some((object, entry)) => {
                self.permits[entry.position.priority as usize] += 1;
                let until = now + KEPT_FOR;
                entry.kept_until = Some(until);
                self.kept.push_back((until, object.clone()));
                Next::Permit(object)
            }
            None => {
                self.bucket.put_back(now);
                Next::Idle
            }
        }
    }

    /// Marks the caller as busy, for example with a slow write, or as free again. A permit that it could not take is granted
    /// again.
    pub fn set_busy(&mut self, object: &str, busy: bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(object) else { return };
        entry.busy = busy;
        if busy {
            return;
        }
        if std::mem::take(&mut entry.set_aside) {
            entry.position = self.queue.push_front(&entry.position, object.to_owned());
        }
        if let Some(kept_until) = &mut entry.kept_until {
            *kept_until = now + KEPT_FOR;
            self.kept.push_back((*kept_until, object.to_owned()));
        }
    }

    /// How long an object has waited for a permit. None if it does not wait.
    pub fn waited(&self, object: &str, now: Instant) -> Option<Duration> {
        self.entries.get(object).map(|entry| now.duration_since(entry.since))
    }

    /// Where a queued object stands. None if it is not queued, or has been granted a permit.
    pub fn place(&mut self, object: &str, now: Instant) -> Option<Place> {
        let entry = self.entries.get(object).filter(|entry| entry.kept_until.is_none())?;
        let ahead = self.queue.ahead(&entry.position);
        Some(Place { ahead, limit: self.bucket.limit(), rate: self.bucket.rate(now) })
    }

    /// The handle by which the caller is notified.
    pub fn waiter(&self, object: &str) -> Option<&W> {
        self.entries.get(object).map(|entry| &entry.waiter)
    }

    /// Withdraws a request, and gives back the permit if one is kept for it.
    pub fn leave(&mut self, object: &str, now: Instant) {
        match self.entries.remove(object) {
            Some(Entry { kept_until: Some(_), position, .. }) => self.ended(position.priority, true, now),
            Some(entry) => self.queue.remove(&entry.position),
            None => {}
        }
    }

    /// Returns a permit of this priority level. `unused` if its token was not needed.
    pub fn ended(&mut self, priority: Priority, unused: bool, now: Instant) {
        self.permits[priority as usize] -= 1;
        if unused {
            self.bucket.put_back(now);
        }
    }

    /// Records that the API refused a call because there were too many. Permits that nobody has taken yet are revoked,
    /// and their requests go back to the front of the queue.
    pub fn refused(&mut self, retry_after: Option<Duration>, now: Instant) {
        self.expire(now);
        for (until, object) in std::mem::take(&mut self.kept) {
            if let Some(entry) = self.entries.get_mut(&object).filter(|entry| entry.kept_until == Some(until)) {
                entry.kept_until = None;
                entry.position = self.queue.push_front(&entry.position, object);
                let priority = entry.position.priority;
                self.ended(priority, true, now);
            }
        }
        self.bucket.refused(retry_after, now);
    }

    /// Why calls wait, and since when.
    pub fn saturation(&mut self, now: Instant) -> Option<(Saturation, Instant)> {
        let since = self.queue.firsts().filter_map(|object| self.entries.get(object)).map(|entry| entry.since).min();
        if let Some(since) = since.filter(|since| now.duration_since(*since) >= LONG) {
            self.long = Some((self.long.map_or(since, |(first, _)| first), now));
        }
        self.long = self.long.filter(|(_, last)| now.duration_since(*last) < CALM);
        if let Some(since) = self.bucket.slowed_since(now) {
            self.refused = Some((self.refused.map_or(since, |(first, _)| first), now));
        }
        self.refused = self.refused.filter(|(_, last)| now.duration_since(*last) < CALM);
        let lasting = |saturation, spell: Option<(Instant, Instant)>| spell.map(|(since, _)| (saturation, since));
        lasting(Saturation::Refused, self.refused).or(lasting(Saturation::Queued, self.long))
    }

    fn has_room_for(&self, priority: Priority) -> bool {
        match priority {
            Priority::Stop => self.permits() < PERMITS,
            _ => self.permits() < PERMITS - FOR_STOPS && self.permits[priority as usize] < PER_LEVEL,
        }
    }

    /// Takes back the permits that their callers did not take. Those that are busy come first afterwards. The others
    /// have other work, or are gone, so their requests are withdrawn.
    fn expire(&mut self, now: Instant) {
        while let Some((until, object)) = self.kept.pop_front_if(|(until, _)| *until <= now) {
            let Some(entry) = self.entries.get_mut(&object).filter(|entry| entry.kept_until == Some(until)) else {
                continue;
            };
            if entry.busy {
                (entry.kept_until, entry.set_aside) = (None, true);
                let priority = entry.position.priority;
                self.ended(priority, true, now);
            } else {
                self.leave(&object, now);
            }
        }
    }
}

/// A granted permit.
#[derive(Debug)]
pub(super) struct Asked<W> {
    pub priority: Priority,
    pub waited: Duration,
    /// The handle by which the caller was to be notified.
    #[expect(dead_code, reason = "dropped with it, which counts one less that waits")]
    waiter: Option<W>,
}
