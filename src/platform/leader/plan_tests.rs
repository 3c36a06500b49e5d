use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn record(version: u64, holder: &str) -> Record {
    Record { version: Some(version.to_string()), holder: holder.into(), lasts: Some(LEASE_DURATION) }
}

fn candidate(now: Instant) -> Candidate {
    Candidate::new("me".into(), now)
}

/// What the candidate does after it has seen `seen` at the start, and again `later`.
fn after(seen: Record, later: Duration) -> Next {
    let start = Instant::now();
    let mut me = candidate(start);
    me.looked(seen.clone(), start);
    me.looked(seen, start + later);
    me.next(start + later)
}

#[test]
fn a_lease_that_does_not_change_is_taken_when_its_own_time_is_over_and_a_released_one_at_once() {
    assert_eq!(candidate(Instant::now()).next(Instant::now()), Next::Look);
    assert_eq!(after(record(1, "other"), LEASE_DURATION - SECOND), Next::Wait);
    assert_eq!(after(record(1, "other"), LEASE_DURATION), Next::Write);
    let long = Record { lasts: Some(60 * SECOND), ..record(1, "other") };
    assert_eq!(after(long.clone(), 59 * SECOND), Next::Wait);
    assert_eq!(after(long, 60 * SECOND), Next::Write);
    assert_eq!(after(record(1, ""), Duration::ZERO), Next::Write);
    // Whatever duration somebody writes into the Lease, nobody waits forever, or gets in while the leader still acts.
    let odd = |lasts| Record { lasts: Some(lasts), ..record(1, "other") };
    assert_eq!(after(odd(SECOND), LEASE_DURATION - SECOND), Next::Wait);
    assert_eq!(after(odd(1_000_000 * SECOND), LEASE_DURATION * 6), Next::Write);
    // A write of its own that took effect although it was reported as failed.
    assert_eq!(after(record(1, "me"), Duration::ZERO), Next::Write);
}

#[test]
fn where_there_is_no_lease_its_holder_may_not_know_yet_so_a_new_one_is_not_free_at_once() {
    assert_eq!(after(Record::default(), 60 * SECOND), Next::Create);
    assert_eq!(after(record(1, NOBODY), LEASE_DURATION - SECOND), Next::Wait);
    assert_eq!(after(record(1, NOBODY), LEASE_DURATION), Next::Write);
}

#[test]
fn any_change_of_the_lease_begins_the_wait_anew() {
    let start = Instant::now();
    let mut me = candidate(start);
    me.looked(record(1, "other"), start);
    me.looked(record(2, "other"), start + 9 * SECOND);
    assert_eq!(me.next(start + 18 * SECOND), Next::Wait);
    assert_eq!(me.next(start + 19 * SECOND), Next::Write);
    // A candidate that does not know the present state reads the Lease first.
    me.forget();
    assert_eq!(me.next(start + 60 * SECOND), Next::Look);
}

#[test]
fn the_leader_ends_when_it_is_late_and_as_soon_as_it_sees_that_the_lease_is_not_its_own() {
    let start = Instant::now();
    let mut me = candidate(start);
    assert_eq!(me.wrote(record(1, "me"), start), start + RENEW_DEADLINE);
    assert_eq!(me.next(start + RENEW_EVERY), Next::Write);
    assert_eq!(me.next(start + RENEW_DEADLINE), Next::End(Lost::Late));
    me.forget();
    assert_eq!(me.next(start + SECOND), Next::Look);
    assert_eq!(me.next(start + RENEW_DEADLINE), Next::End(Lost::Late));
    me.looked(record(2, "me"), start + SECOND);
    assert_eq!(me.next(start + SECOND), Next::Write);
    me.looked(record(3, "other"), start + SECOND);
    assert_eq!(me.next(start + SECOND), Next::End(Lost::Taken("other".into())));
    me.looked(Record::default(), start + SECOND);
    assert_eq!(me.next(start + SECOND), Next::End(Lost::Deleted));
}

#[test]
fn after_a_kill_another_leads_within_15_seconds_and_a_leader_has_time_for_two_tries() {
    // The candidate sees the last renewal, waits, polls again and takes the Lease, each call as slow as allowed.
    assert!(RETRY_PERIOD + CALL + LEASE_DURATION + RETRY_PERIOD + CALL <= 15 * SECOND);
    assert!(RENEW_EVERY + CALL + RETRY_PERIOD + CALL < RENEW_DEADLINE);
    assert!(RENEW_DEADLINE < LEASE_DURATION);
}

/// Milliseconds.
type Moment = u64;

/// What happens next to one process, or to a request of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    /// The process takes its next step.
    Round,
    /// Its read arrives at the server.
    Asked,
    /// Its write arrives: sent at this time, in this round, on this version, by the process of this number.
    Written { sent: Moment, round: u64, on: u64, by: u64 },
    /// Its creation of the Lease arrives.
    Created,
    /// It stops waiting for a response.
    Timeout { round: u64 },
    /// A person deletes the Lease.
    Deleted,
}

struct Process {
    candidate: Candidate,
    /// Differs for each process that has had this place.
    number: u64,
    /// Seconds on its clock per second.
    speed: f64,
    /// Calls so far: the response to an earlier call is ignored.
    round: u64,
}

/// A server, three processes and the network between them.
struct World {
    start: Instant,
    /// Version and holder; version 0 if there is no Lease.
    lease: (u64, String),
    versions: u64,
    processes: Vec<Process>,
    queue: BTreeMap<(Moment, u64), (usize, Happens)>,
    queued: u64,
    chance: u64,
    leaders: u64,
}

impl World {
    fn new(speeds: [f64; 3], chance: u64) -> Self {
        let start = Instant::now();
        let process = |(n, speed): (usize, f64)| Process {
            candidate: Candidate::new(format!("{n}-0"), start),
            number: 0,
            speed,
            round: 0,
        };
        let mut world = Self {
            start,
            lease: (0, String::new()),
            versions: 0,
            processes: speeds.into_iter().enumerate().map(process).collect(),
            queue: BTreeMap::new(),
            queued: 0,
            chance,
            leaders: 0,
        };
        for n in 0..3 {
            let soon = world.delay();
            world.at(soon, n, Happens::Round);
        }
        world.at(30_000, 0, Happens::Deleted);
        world
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = self.chance;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        drawn ^ (drawn >> 31)
    }

    /// How long a call or a rest takes: mostly short, at times so long that the process might have been suspended.
    fn delay(&mut self) -> Moment {
        match self.draw() % 20 {
            0 => self.draw() % 20_000,
            1..4 => self.draw() % 4_000,
            _ => self.draw() % 50,
        }
    }

    fn at(&mut self, moment: Moment, process: usize, happens: Happens) {
        self.queued += 1;
        self.queue.insert((moment, self.queued), (process, happens));
    }

    /// The time on the process's own clock.
    fn clock(&self, process: usize, moment: Moment) -> Instant {
        self.start + Duration::from_millis(moment).mul_f64(self.processes[process].speed)
    }

    fn leads(&self, process: usize, moment: Moment) -> bool {
        let until = self.processes[process].candidate.until();
        until.is_some_and(|until| self.clock(process, moment) < until)
    }

    fn assert_one_leader(&self, moment: Moment) {
        let leaders: Vec<usize> = (0..3).filter(|process| self.leads(*process, moment)).collect();
        assert!(leaders.len() <= 1, "{leaders:?} lead at {moment}");
    }

    fn run(&mut self, until: Moment) {
        while let Some(((moment, _), (n, happens))) = self.queue.pop_first() {
            if moment > until {
                return;
            }
            self.happen(moment, n, happens);
            self.assert_one_leader(moment);
        }
    }

    fn happen(&mut self, moment: Moment, n: usize, happens: Happens) {
        match happens {
            Happens::Round => self.round(moment, n),
            Happens::Asked => {
                let answered = moment + self.delay();
                let (version, holder) = self.lease.clone();
                let seen = if version == 0 { Record::default() } else { record(version, &holder) };
                let answered_at = self.clock(n, answered);
                self.processes[n].candidate.looked(seen, answered_at);
                self.at(answered, n, Happens::Round);
            }
            Happens::Written { sent, round, on, by } => {
                let takes = self.lease.0 == on;
                if takes {
                    self.set_holder(format!("{n}-{by}"));
                }
                let lost = self.draw().is_multiple_of(8);
                if self.processes[n].round == round && !lost {
                    self.write_answered(moment, n, sent, takes);
                }
            }
            Happens::Created => {
                if self.lease.0 == 0 {
                    self.set_holder(NOBODY.into());
                }
                self.at(moment, n, Happens::Round);
            }
            Happens::Deleted => {
                self.lease = (0, String::new());
                let later = moment + 20_000 + self.draw() % 60_000;
                self.at(later, n, Happens::Deleted);
            }
            Happens::Timeout { round } => {
                if self.processes[n].round == round {
                    self.processes[n].candidate.forget();
                    self.at(moment + 500, n, Happens::Round);
                }
            }
        }
    }

    fn set_holder(&mut self, holder: String) {
        self.versions += 1;
        self.lease = (self.versions, holder);
    }

    /// The process takes its next step.
    fn round(&mut self, moment: Moment, n: usize) {
        let now = self.clock(n, moment);
        // A leader that is told to stop releases the Lease.
        let stops = self.draw().is_multiple_of(20) && self.leads(n, moment);
        let process = &mut self.processes[n];
        process.round += 1;
        let round = process.round;
        match process.candidate.next(now) {
            Next::Look => {
                let arrives = moment + self.delay();
                self.at(arrives, n, Happens::Asked);
            }
            Next::Write if stops => {
                if process.candidate.record.version == Some(self.lease.0.to_string()) {
                    self.set_holder(String::new());
                }
                self.restart(moment, n);
            }
            Next::Write => {
                let (arrives, on) = (moment + self.delay(), self.processes[n].candidate.record.version.clone());
                let on = on.map_or(0, |version| version.parse().unwrap());
                let by = self.processes[n].number;
                self.at(arrives, n, Happens::Written { sent: moment, round, on, by });
                let limit = u64::try_from(CALL.as_millis()).unwrap();
                self.at(moment + limit, n, Happens::Timeout { round });
            }
            Next::Create => {
                process.candidate.forget();
                let arrives = moment + self.delay();
                self.at(arrives, n, Happens::Created);
            }
            Next::Wait => {
                process.candidate.forget();
                let later = moment + 500 + self.delay();
                self.at(later, n, Happens::Round);
            }
            Next::End(_) => self.restart(moment, n),
        }
    }

    /// The response to a write arrives in time.
    fn write_answered(&mut self, moment: Moment, n: usize, sent: Moment, took_effect: bool) {
        let sent = self.clock(n, sent);
        let process = &mut self.processes[n];
        process.round += 1;
        if !took_effect {
            process.candidate.forget();
            self.at(moment + 500, n, Happens::Round);
            return;
        }
        let led = process.candidate.until.is_some();
        process.candidate.wrote(record(self.versions, &process.candidate.name.clone()), sent);
        self.leaders += u64::from(!led);
        let rest = if self.draw().is_multiple_of(12) { self.delay() } else { 0 };
        self.at(moment + 2_000 + rest, n, Happens::Round);
    }

    /// The process ends, and another one with another name takes its place.
    fn restart(&mut self, moment: Moment, n: usize) {
        let now = self.clock(n, moment);
        let process = &mut self.processes[n];
        process.number += 1;
        process.candidate = Candidate::new(format!("{n}-{}", process.number), now);
        let later = moment + self.delay();
        self.at(later, n, Happens::Round);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]
    #[test]
    fn never_do_two_lead_whatever_is_late_lost_or_stopped_and_however_clocks_run(
        speeds in proptest::array::uniform3(0.92_f64..1.08),
        chance in any::<u64>(),
    ) {
        let mut world = World::new(speeds, chance);
        world.run(600_000);
        prop_assert!(world.leaders > 0, "nobody ever led");
    }
}
