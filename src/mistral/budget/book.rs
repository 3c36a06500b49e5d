//! Who may call: joins the bucket, the queue and the calls under way. No I/O here; the time is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::queue::{Class, Queue, Spot};

/// Turns that may be had at a time: ten thousand starts must not open ten thousand connections.
pub const TURNS: usize = 128;
/// So many of them are for stops only: slow calls of other kinds must not keep them all.
const FOR_STOPS: usize = 8;
/// So many may one class have, but for stops: while a thousand starts wait, ends are still looked for.
pub(super) const OF_A_CLASS: usize = 96;
/// How long a turn is kept for whoever was told of it.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(10);
/// Whoever waits longer than this waits long.
const LONG: Duration = Duration::from_secs(10);
/// How long after the last long wait it is over: what comes and goes within a minute or two is one and the same.
const CALM: Duration = Duration::from_secs(120);

/// Somebody who wants to call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Lanes take turns within a class: a Workspace's, or one for calls that are made for several.
    pub lane: String,
    /// What wants to call; it stands in the queue once.
    pub object: String,
}

/// What keeps calls waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strain {
    /// The API has refused calls because there were too many.
    Refused,
    /// More is asked for than the limit lets through.
    Queued,
}

/// What the book-keeper does next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// It is this one's turn.
    Turn(String),
    /// Nobody's before this.
    At(Instant),
    /// Nobody's before a turn ends.
    Full,
    /// Nobody waits.
    Idle,
}

/// All that is known of one key's calls. `W` is what a caller leaves behind to be told by.
#[derive(Debug)]
pub(super) struct Book<W> {
    bucket: Bucket,
    queue: Queue<String>,
    entries: HashMap<String, Entry<W>>,
    /// Until when a turn is kept for whom, in this order; some may have come already.
    kept: VecDeque<(Instant, String)>,
    /// Turns that are had or kept for somebody, by class.
    turns: [usize; Class::ALL.len()],
    /// Since when, and when last, somebody waited long.
    long: Option<(Instant, Instant)>,
    /// Since when, and when last, it was slow for the API's sake.
    refused: Option<(Instant, Instant)>,
}

#[derive(Debug)]
struct Entry<W> {
    spot: Spot,
    since: Instant,
    kept_until: Option<Instant>,
    waiter: W,
}

impl<W> Book<W> {
    pub fn new(limit: f64, now: Instant) -> Self {
        let bucket = Bucket::new(limit, now);
        Self {
            bucket,
            queue: Queue::default(),
            entries: HashMap::new(),
            kept: VecDeque::new(),
            turns: [0; Class::ALL.len()],
            long: None,
            refused: None,
        }
    }

    pub fn bucket(&mut self) -> &mut Bucket {
        &mut self.bucket
    }

    /// Those who wait, and those who were told and have not come yet.
    pub fn waiting(&self) -> usize {
        self.entries.len()
    }

    /// Turns that are had or kept for somebody.
    pub fn turns(&self) -> usize {
        self.turns.iter().sum()
    }

    /// Asks for a turn: whether there is one now. If not, the caller stands in the queue, in the first of the
    /// classes that it has asked with. A turn begins with one token.
    pub fn ask(&mut self, class: Class, caller: &Caller, now: Instant, waiter: impl FnOnce() -> W) -> Option<Asked<W>> {
        self.expire(now);
        if let Some(entry) = self.entries.get_mut(&caller.object) {
            if entry.kept_until.is_some() {
                let entry = self.entries.remove(&caller.object)?;
                return Some(Asked {
                    class: entry.spot.class,
                    waited: now.duration_since(entry.since),
                    waiter: Some(entry.waiter),
                });
            }
            if class < entry.spot.class {
                self.queue.remove(&entry.spot);
                entry.spot = self.queue.push(class, &caller.lane, caller.object.clone());
                entry.waiter = waiter();
            }
            return None;
        }
        // Those who cannot have one yet, because their class has as many as it may, do not stand in the way.
        let nobody_before = !self.queue.has(|class| self.has_room_for(class));
        if nobody_before && self.has_room_for(class) && self.bucket.take(now).is_ok() {
            self.turns[class as usize] += 1;
            return Some(Asked { class, waited: Duration::ZERO, waiter: None });
        }
        let spot = self.queue.push(class, &caller.lane, caller.object.clone());
        let entry = Entry { spot, since: now, kept_until: None, waiter: waiter() };
        self.entries.insert(caller.object.clone(), entry);
        None
    }

    /// Whose turn it is. It is kept for [`KEPT_FOR`].
    pub fn next(&mut self, now: Instant) -> Next {
        self.expire(now);
        if self.queue.is_empty() {
            return Next::Idle;
        }
        let room = Class::ALL.map(|class| self.has_room_for(class));
        let may = |class: Class| room[class as usize];
        if !self.queue.has(may) {
            return self.kept.front().map_or(Next::Full, |(until, _)| Next::At(*until));
        }
        if let Err(at) = self.bucket.take(now) {
            return Next::At(at);
        }
        let next = self.queue.pop(may);
        match next.and_then(|object| self.entries.get_mut(&object).map(|entry| (object, entry))) {
            Some((object, entry)) => {
                self.turns[entry.spot.class as usize] += 1;
                let until = now + KEPT_FOR;
                entry.kept_until = Some(until);
                self.kept.push_back((until, object.clone()));
                Next::Turn(object)
            }
            None => {
                self.bucket.put_back(now);
                Next::Idle
            }
        }
    }

    /// What the caller left behind.
    pub fn waiter(&self, object: &str) -> Option<&W> {
        self.entries.get(object).map(|entry| &entry.waiter)
    }

    /// Does not want to call any more.
    pub fn leave(&mut self, object: &str, now: Instant) {
        match self.entries.remove(object) {
            Some(Entry { kept_until: Some(_), spot, .. }) => self.ended(spot.class, true, now),
            Some(entry) => self.queue.remove(&entry.spot),
            None => {}
        }
    }

    /// A turn that was asked for in this class has ended; `unused` if its token was not needed.
    pub fn ended(&mut self, class: Class, unused: bool, now: Instant) {
        self.turns[class as usize] -= 1;
        if unused {
            self.bucket.put_back(now);
        }
    }

    /// The API has refused a call because there are too many. Turns that nobody has taken up yet are put off.
    pub fn refused(&mut self, retry_after: Option<Duration>, now: Instant) {
        self.expire(now);
        for (until, object) in std::mem::take(&mut self.kept) {
            if let Some(entry) = self.entries.get_mut(&object).filter(|entry| entry.kept_until == Some(until)) {
                entry.kept_until = None;
                entry.spot = self.queue.push_front(&entry.spot, object);
                let class = entry.spot.class;
                self.ended(class, true, now);
            }
        }
        self.bucket.refused(retry_after, now);
    }

    /// What keeps calls waiting, and since when.
    pub fn strain(&mut self, now: Instant) -> Option<(Strain, Instant)> {
        let since = self.queue.firsts().filter_map(|object| self.entries.get(object)).map(|entry| entry.since).min();
        if let Some(since) = since.filter(|since| now.duration_since(*since) >= LONG) {
            self.long = Some((self.long.map_or(since, |(first, _)| first), now));
        }
        self.long = self.long.filter(|(_, last)| now.duration_since(*last) < CALM);
        if let Some(since) = self.bucket.slowed_since(now) {
            self.refused = Some((self.refused.map_or(since, |(first, _)| first), now));
        }
        self.refused = self.refused.filter(|(_, last)| now.duration_since(*last) < CALM);
        let told = |strain, spell: Option<(Instant, Instant)>| spell.map(|(since, _)| (strain, since));
        told(Strain::Refused, self.refused).or(told(Strain::Queued, self.long))
    }

    fn has_room_for(&self, class: Class) -> bool {
        match class {
            Class::Stop => self.turns() < TURNS,
            _ => self.turns() < TURNS - FOR_STOPS && self.turns[class as usize] < OF_A_CLASS,
        }
    }

    /// Whoever did not come has something else to do, or is gone.
    fn expire(&mut self, now: Instant) {
        while let Some((until, object)) = self.kept.pop_front_if(|(until, _)| *until <= now) {
            if self.entries.get(&object).is_some_and(|entry| entry.kept_until == Some(until)) {
                self.leave(&object, now);
            }
        }
    }
}

/// A turn that was to be had.
#[derive(Debug)]
pub(super) struct Asked<W> {
    pub class: Class,
    pub waited: Duration,
    /// What the caller left behind while it waited.
    #[expect(dead_code, reason = "dropped with it, which counts one less that waits")]
    waiter: Option<W>,
}
