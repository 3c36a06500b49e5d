//! What this process remembers of finished executions that have left the watch.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use crate::sync;

/// How long a resource that is neither marked nor watched is remembered: it may be on its way from one watch to the
/// other.
const ON_ITS_WAY: Duration = Duration::from_secs(60);
/// A mark that somebody puts back is removed again no sooner than this after its last removal.
const PUT_BACK_FOR: Duration = Duration::from_secs(60);
/// How long a resource stays in the watch after its first return in this term. Each further return doubles it.
const FIRST_STAY: Duration = Duration::from_secs(120);
/// The longest stay. Somebody removes the label again and again, and the operator does not fight.
const LONGEST_STAY: Duration = Duration::from_secs(3600);

/// What is known of a resource that left the watch in this term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The API has shown its run. Otherwise it ended without one, or somebody else marked it.
    pub had_run: bool,
    /// When this process first saw the end, and whether it wrote the end itself.
    pub end: Option<(std::time::Instant, bool)>,
    /// How long it is to stay before it leaves again.
    pub stays: Duration,
}

/// A resource to bring back into the watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returning {
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub uid: Uuid,
}

/// The finished executions outside the watch, as far as anything has to be known of them.
#[derive(Debug, Default)]
pub struct Left(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Those that left during this term. If the cluster's store is restored to before their claim, they look as new as
    /// a resource that was never started, and only this shows that they are not.
    of_this_term: HashMap<Uuid, Entry>,
    /// Those that come back by themselves, in the order of their time.
    returning: BTreeMap<(Timestamp, Uuid), Returning>,
    due: HashMap<Uuid, Timestamp>,
    /// When the mark was last removed, of those where that is shorter ago than [`PUT_BACK_FOR`].
    brought_back: HashMap<Uuid, Instant>,
    /// Those whose time has come, until it is known how that went, or until a watch shows that they are not marked.
    taken: HashSet<Uuid>,
    /// Those in the store of the watched ones although they are marked: their mark cannot be removed.
    guests: HashMap<Uuid, Guest>,
}

#[derive(Clone, Debug)]
struct Guest {
    resource: Returning,
    /// When to try again to remove the mark.
    unmark_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    had_run: bool,
    end: Option<(std::time::Instant, bool)>,
    /// How often it has left.
    times: u32,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Outside the watch, or about to go there.
    Marked {
        /// The number of the scope whose watch has shown the label.
        scope: Option<usize>,
        /// When that was.
        seen: Instant,
    },
    /// In the watch again, or deleted, since this time.
    Unmarked(Instant),
}

impl Left {
    /// A resource is about to be marked.
    pub fn leaves(&self, uid: Uuid, had_run: bool, end: Option<(std::time::Instant, bool)>) {
        let mut known = self.lock();
        let times = known.of_this_term.get(&uid).map_or(0, |entry| entry.times) + 1;
        let place = Place::Marked { scope: None, seen: Instant::now() };
        known.of_this_term.insert(uid, Entry { had_run, end, times, place });
    }

    /// What is known of a resource that is watched again; none if it did not leave in this term.
    pub fn returned(&self, uid: Uuid) -> Option<Memory> {
        let Entry { had_run, end, times, place } = *self.lock().of_this_term.get(&uid)?;
        let stays = match place {
            Place::Unmarked(since) => {
                let stay = FIRST_STAY.saturating_mul(1 << times.saturating_sub(1).min(8)).min(LONGEST_STAY);
                stay.saturating_sub(since.elapsed())
            }
            Place::Marked { .. } => FIRST_STAY,
        };
        Some(Memory { had_run, end, stays: if times == 0 { Duration::ZERO } else { stays } })
    }

    /// A watch shows a marked resource, which comes back at this time, if at all.
    ///
    /// The process also remembers a resource that was created in this term and that somebody else has marked. Its run may
    /// have started before the mark hid it.
    pub fn is_marked(&self, scope: usize, resource: Returning, of_this_term: bool, due: Option<Timestamp>) {
        let mut known = self.lock();
        let place = Place::Marked { scope: Some(scope), seen: Instant::now() };
        let unknown = Entry { had_run: false, end: None, times: 0, place };
        match known.of_this_term.get_mut(&resource.uid) {
            Some(entry) => entry.place = place,
            None if of_this_term => drop(known.of_this_term.insert(resource.uid, unknown)),
            None => {}
        }
        known.returns_at(resource, due);
    }

    /// A resource could not be brought back. It is due again at this time, unless a watch has shown a change since.
    pub fn still_marked(&self, resource: Returning, due: Timestamp) {
        let mut known = self.lock();
        let is_there = known.taken.remove(&resource.uid) || known.guests.contains_key(&resource.uid);
        if is_there && !known.due.contains_key(&resource.uid) {
            known.returns_at(resource, Some(due));
        }
    }

    /// Nothing is to be done about a resource whose time had come, until a watch shows a change.
    pub fn is_settled(&self, uid: Uuid) {
        self.lock().taken.remove(&uid);
    }

    /// A resource is not marked any more: it is gone, or watched again.
    pub fn is_unmarked(&self, uid: Uuid) {
        let mut known = self.lock();
        known.stays_away(uid);
        known.taken.remove(&uid);
        if let Some(entry) = known.of_this_term.get_mut(&uid) {
            entry.place = Place::Unmarked(Instant::now());
        }
        // The store has to learn what became of it.
        if let Some(guest) = known.guests.get(&uid) {
            let resource = guest.resource.clone();
            known.returns_at(resource, Some(Timestamp::MIN));
        }
    }

    /// A list of the marked resources of a scope, begun at this time, is complete: what it has not shown is gone.
    pub fn listed(&self, scope: usize, begun: Instant) {
        for entry in self.lock().of_this_term.values_mut() {
            if matches!(entry.place, Place::Marked { scope: Some(of), seen } if of == scope && seen < begun) {
                entry.place = Place::Unmarked(Instant::now());
            }
        }
    }

    /// The mark of a resource was removed, and the resource appears in the watch.
    pub fn is_brought_back(&self, uid: Uuid) {
        let mut known = self.lock();
        known.taken.remove(&uid);
        known.guests.remove(&uid);
        known.brought_back.insert(uid, Instant::now());
    }

    /// How long the mark of this resource is left where somebody has put it back. Counts from its removal: whoever puts
    /// it back again and again must not prolong this.
    pub fn put_back_for(&self, uid: Uuid) -> Duration {
        let removed = self.lock().brought_back.get(&uid).map(Instant::elapsed);
        removed.map_or(Duration::ZERO, |ago| PUT_BACK_FOR.saturating_sub(ago))
    }

    /// Whether a resource is in the store although it is marked.
    pub fn is_guest(&self, uid: Uuid) -> bool {
        self.lock().guests.contains_key(&uid)
    }

    /// How long until an attempt to remove the mark of this resource is due.
    pub fn unmark_in(&self, uid: Uuid) -> Duration {
        let guest = self.lock().guests.get(&uid).map(|guest| guest.unmark_at);
        guest.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now())).max(self.put_back_for(uid))
    }

    /// A marked resource is about to be put into the store. Returns whether it may be: not if a watch has shown since
    /// its turn came that it is not marked any more.
    pub fn enters(&self, resource: &Returning, unmark_in: Duration) -> bool {
        let mut known = self.lock();
        let may = known.taken.contains(&resource.uid);
        if may {
            let guest = Guest { resource: resource.clone(), unmark_at: Instant::now() + unmark_in };
            known.guests.insert(resource.uid, guest);
        }
        may
    }

    /// A resource needs no place in the store any more. Returns whether it had one.
    pub fn quits(&self, uid: Uuid) -> bool {
        self.lock().guests.remove(&uid).is_some()
    }

    /// Takes out a resource whose time to come back has come.
    pub fn take_due(&self, now: Timestamp) -> Option<Returning> {
        let mut known = self.lock();
        let first = known.returning.first_entry().filter(|first| first.key().0 <= now)?;
        let resource = first.remove();
        known.due.remove(&resource.uid);
        known.taken.insert(resource.uid);
        Some(resource)
    }

    /// Forgets the resources that are gone.
    pub fn forget_all_but(&self, is_watched: impl Fn(&Uuid) -> bool) {
        let mut known = self.lock();
        known.brought_back.retain(|_, since| since.elapsed() < PUT_BACK_FOR);
        known.of_this_term.retain(|uid, entry| match entry.place {
            Place::Marked { .. } => true,
            Place::Unmarked(since) => since.elapsed() < ON_ITS_WAY || is_watched(uid),
        });
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        sync::lock(&self.0)
    }
}

impl Known {
    fn returns_at(&mut self, resource: Returning, due: Option<Timestamp>) {
        self.stays_away(resource.uid);
        if let Some(due) = due {
            self.due.insert(resource.uid, due);
            self.returning.insert((due, resource.uid), resource);
        }
    }

    fn stays_away(&mut self, uid: Uuid) {
        if let Some(due) = self.due.remove(&uid) {
            self.returning.remove(&(due, uid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(n: u128) -> Returning {
        Returning { namespace: "team".into(), name: n.to_string().into(), uid: Uuid::from_u128(n) }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn resources_come_back_in_the_order_of_their_time_and_only_while_they_are_marked() {
        let left = Left::default();
        for (n, seconds) in [(1, 30), (2, 10), (3, 20)] {
            left.is_marked(0, resource(n), false, Some(at(seconds)));
        }
        left.is_marked(0, resource(4), false, None);
        left.is_marked(0, resource(5), false, Some(Timestamp::MAX));
        left.is_unmarked(Uuid::from_u128(3));
        // A longer TTL takes the place of the former one.
        left.is_marked(0, resource(2), false, Some(at(40)));
        assert_eq!(left.take_due(at(5)), None);
        assert_eq!((left.take_due(at(35)), left.take_due(at(35))), (Some(resource(1)), None));
        assert_eq!((left.take_due(at(45)), left.take_due(at(45))), (Some(resource(2)), None));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_left_in_this_term_is_remembered_until_it_is_gone() {
        let (left, uid) = (Left::default(), Uuid::from_u128(1));
        let end = Some((std::time::Instant::now(), true));
        left.leaves(uid, true, end);
        left.forget_all_but(|_| false);
        let known = || left.returned(uid).map(|memory| (memory.had_run, memory.end));
        assert_eq!(known(), Some((true, end)), "it is marked");
        left.is_unmarked(uid);
        tokio::time::advance(ON_ITS_WAY / 2).await;
        left.forget_all_but(|_| false);
        assert_eq!(known(), Some((true, end)), "it may be on its way into the watch");
        tokio::time::advance(ON_ITS_WAY).await;
        left.forget_all_but(|_| true);
        assert_eq!(known(), Some((true, end)), "it is watched");
        left.forget_all_but(|_| false);
        assert_eq!(known(), None, "it is gone");
        assert_eq!(left.returned(Uuid::from_u128(2)), None, "it never left");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_somebody_else_marked_in_this_term_is_remembered_and_one_from_before_is_not() {
        let left = Left::default();
        left.is_marked(0, resource(1), true, Some(Timestamp::MIN));
        left.is_marked(0, resource(2), false, Some(Timestamp::MIN));
        let hidden = Memory { had_run: false, end: None, stays: Duration::ZERO };
        assert_eq!(left.returned(Uuid::from_u128(1)), Some(hidden));
        assert_eq!(left.returned(Uuid::from_u128(2)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn whose_label_is_removed_again_and_again_stays_longer_each_time() {
        let (left, uid) = (Left::default(), Uuid::from_u128(1));
        let stays: Vec<u64> = (0..8)
            .map(|_| {
                left.leaves(uid, true, None);
                left.is_unmarked(uid);
                left.returned(uid).unwrap().stays.as_secs()
            })
            .collect();
        assert_eq!(stays, [120, 240, 480, 960, 1920, 3600, 3600, 3600]);
        tokio::time::advance(Duration::from_secs(3000)).await;
        assert_eq!(left.returned(uid).unwrap().stays, Duration::from_secs(600));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_complete_list_does_not_show_is_gone() {
        let left = Left::default();
        for n in [1, 2, 3] {
            left.leaves(Uuid::from_u128(n), true, None);
            left.is_marked(usize::from(n == 3), resource(n), true, None);
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        let begun = Instant::now();
        left.is_marked(0, resource(1), true, None);
        left.listed(0, begun);
        tokio::time::advance(ON_ITS_WAY * 2).await;
        left.forget_all_but(|_| false);
        let known = [1, 2, 3].map(|n| left.returned(Uuid::from_u128(n)).is_some());
        assert_eq!(known, [true, false, true], "the second is gone, and the third is in another scope");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_could_not_be_brought_back_is_due_again_unless_it_has_changed_since() {
        let left = Left::default();
        left.is_marked(0, resource(1), true, Some(at(1)));
        let first = left.take_due(at(1)).unwrap();
        left.still_marked(first.clone(), at(10));
        assert_eq!((left.take_due(at(9)), left.take_due(at(10))), (None, Some(first.clone())));
        left.is_marked(0, resource(1), true, Some(at(2)));
        left.still_marked(first.clone(), at(100));
        assert_eq!(left.take_due(at(2)), Some(first.clone()), "the change counts");
        left.is_unmarked(first.uid);
        left.still_marked(first, at(3));
        assert_eq!(left.take_due(at(1000)), None, "it is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_mark_that_is_put_back_again_and_again_is_removed_a_minute_after_its_last_removal() {
        let (left, uid) = (Left::default(), Uuid::from_u128(1));
        assert_eq!(left.put_back_for(uid), Duration::ZERO);
        left.is_brought_back(uid);
        for _ in 0..4 {
            tokio::time::advance(Duration::from_secs(12)).await;
            left.is_marked(0, resource(1), true, Some(Timestamp::MIN));
        }
        assert_eq!(left.put_back_for(uid), Duration::from_secs(12));
        tokio::time::advance(Duration::from_secs(12)).await;
        assert_eq!(left.put_back_for(uid), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_is_looked_at_until_it_is_known_what_became_of_it_and_one_that_is_gone_does_not_enter() {
        let (left, first) = (Left::default(), resource(1));
        let every = Duration::from_secs(30);
        left.is_marked(0, first.clone(), true, Some(at(1)));
        assert_eq!(left.take_due(at(1)), Some(first.clone()));
        assert!(left.enters(&first, every) && left.is_guest(first.uid));
        left.still_marked(first.clone(), at(30));
        tokio::time::advance(every / 3).await;
        assert_eq!(left.unmark_in(first.uid), every * 2 / 3);
        left.is_unmarked(first.uid);
        assert_eq!(left.take_due(at(2)), Some(first.clone()), "the store has to learn that it is gone");
        left.still_marked(first.clone(), at(3));
        assert_eq!(left.take_due(at(3)), Some(first.clone()), "what failed is repeated");
        assert!(left.quits(first.uid) && !left.is_guest(first.uid));

        left.is_marked(0, first.clone(), true, Some(at(1)));
        assert_eq!(left.take_due(at(4)), Some(first.clone()));
        left.is_unmarked(first.uid);
        assert!(!left.enters(&first, every) && !left.is_guest(first.uid), "it has gone meanwhile");
    }
}
