//! The plan of a chaos run: everything that a seed determines.

use std::time::Duration;

use serde_json::{Value, json};

use super::dice::Dice;
use super::environment::{APART, DEFAULT};
use super::faults::{self, Phase};
use super::poison::{Input, Poison};
use super::refusals::Refusal;
use super::values;
use super::workflows::{ENDING, REFERENCED, STOPPED, UNKNOWN};

/// Length of a round in milliseconds. Each round has every disturbance of processes once. The other operator takes over
/// ten seconds after the leader is killed or stopped, and soon after the leader is ended.
const ROUND: u64 = 46_000;
/// One poison object is added per this many executions.
const POISON_EVERY: usize = 20;
/// One execution with refused writes is added per this many executions.
const REFUSAL_EVERY: usize = 50;

#[derive(Clone, Debug)]
pub struct Plan {
    /// The resources and the steps on them.
    pub executions: Vec<Planned>,
    /// The fault mixes of the simulated API, in order.
    pub phases: Vec<Phase>,
    /// The disturbances of processes, in the order of their times.
    pub disturbances: Vec<(Duration, Disturbance)>,
    /// How long resources are created and faults are active.
    pub window: Duration,
}

/// One resource and the steps on it.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Name of the resource, unique across namespaces.
    pub name: String,
    pub namespace: &'static str,
    /// Labels at creation.
    pub labels: Value,
    /// Annotations at creation.
    pub annotations: Value,
    /// Spec at creation.
    pub spec: Value,
    /// An input that `spec` cannot hold.
    pub input: Option<Input>,
    pub at: Duration,
    /// Steps after the creation, each with the wait before it.
    pub steps: Vec<(Duration, Step)>,
}

impl Planned {
    /// An ordinary execution without further steps.
    pub fn new(name: String, spec: Value, at: Duration) -> Self {
        let (labels, annotations) = (json!({}), json!({}));
        Self { name, namespace: DEFAULT, labels, annotations, spec, input: None, at, steps: Vec::new() }
    }
}

/// A refused claim, older than the present one.
pub const OLDER: &str = "older";
/// A claim of another resource.
pub const ANOTHERS: &str = "another's";

/// A step on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sets `spec.suspend`.
    Suspend(bool),
    Delete,
    /// Waits until the resource is gone, then creates it again under the same name.
    CreateAgain,
    /// Replaces the resource by a manifest without annotations and finalizers, once its status has an execution id.
    /// (Before that, only the claim records a possible run. The operator guarantees nothing to a user who removes the
    /// claim then.)
    Replace,
    /// Applies an older, refused claim or another resource's claim over the present one, once the status has an
    /// execution id. Applying an export or a copy has this effect.
    Reapply(&'static str),
    /// Empties the status, as a restore from a backup does.
    WipeStatus,
    /// Sets `spec.shutdown`.
    Shutdown(&'static str),
    /// Creates the ConfigMap that holds a part of the input.
    Provide,
    /// Makes the API server refuse these writes of the operator.
    Refuse(&'static str),
    /// Makes the API server refuse the removal of the finalizer, once the run has started.
    RefuseRelease,
    /// Ends all refusals.
    Allow,
    /// Makes the resource undecodable for the operator, once the run has started.
    Spoil,
    /// Creates a Workflow of the same name that the operator cannot decode.
    OddWorkflow,
}

/// A disturbance of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// SIGKILL to the leader.
    KillLeader,
    /// SIGKILL to the standby operator.
    KillStandby,
    /// SIGSTOP to the leader, and SIGCONT after this time.
    StopLeader(Duration),
    /// SIGTERM to the leader.
    EndLeader,
    /// SIGKILL to the API server, and a restart after this time.
    RestartApiServer(Duration),
    /// A third operator, which ignores the Lease, acts for this time and is then killed.
    SecondLeader(Duration),
}

impl Disturbance {
    /// The names of all kinds in the tally.
    pub const KINDS: [&str; 6] = [
        "leader killed",
        "standby killed",
        "leader stopped and continued",
        "leader ended",
        "API server killed",
        "second leader killed",
    ];

    /// A disturbance with this name in the tally.
    pub fn of_kind(kind: &str) -> Option<Self> {
        let some = Duration::from_secs(12);
        let all = [
            Self::KillLeader,
            Self::KillStandby,
            Self::StopLeader(some),
            Self::EndLeader,
            Self::RestartApiServer(Duration::from_secs(1)),
            Self::SecondLeader(some),
        ];
        all.into_iter().find(|it| it.kind() == kind)
    }

    /// The name in the tally.
    pub fn kind(self) -> &'static str {
        let [killed, standby, stopped, ended, server, second] = Self::KINDS;
        match self {
            Self::KillLeader => killed,
            Self::KillStandby => standby,
            Self::StopLeader(_) => stopped,
            Self::EndLeader => ended,
            Self::RestartApiServer(_) => server,
            Self::SecondLeader(_) => second,
        }
    }
}

/// The scenario of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    Plain,
    Explicit,
    ByReference,
    Resumed,
    Suspended,
    SuspendedAndDeleted,
    Toggled,
    Deleted(&'static str),
    RecreatedExplicit,
    RecreatedDerived,
    Replaced,
    Reapplied(&'static str),
    StatusWiped,
    Twins,
    Shutdown(&'static str),
    /// The execution stays suspended.
    ShutdownHeld(&'static str),
    /// The execution is created with `shutdown`.
    ShutdownAtOnce(&'static str),
    ActiveDeadline,
    StartingDeadline,
    /// The execution stays suspended.
    StartingDeadlineHeld,
    /// The workflow does not exist.
    StartingDeadlineUnknown,
    TimeToLive,
    Values,
}

impl Story {
    /// The spec of the execution with this number.
    fn spec(self, number: usize, dice: &mut Dice) -> Value {
        let workflow = match self {
            Self::Deleted(_) | Self::Shutdown(_) | Self::ActiveDeadline => *dice.one_of(&STOPPED),
            Self::StartingDeadlineUnknown => UNKNOWN,
            Self::ByReference => *dice.one_of(&REFERENCED),
            _ => *dice.one_of(&ENDING),
        };
        let mut spec = json!({ "input": { "number": number, "token": dice.below(u64::MAX).to_string() } });
        if self == Self::ByReference {
            spec["workflowRef"] = json!({ "name": workflow });
        } else {
            spec["workflowIdentifier"] = json!(workflow);
        }
        if matches!(self, Self::Explicit | Self::RecreatedExplicit | Self::Twins)
            || (matches!(self, Self::Deleted("Cancel" | "Terminate")) && dice.percent(25))
        {
            spec["executionId"] = json!(format!("explicit-{number}"));
        }
        if matches!(self, Self::Shutdown(_) | Self::ActiveDeadline) {
            spec["terminationGracePeriodSeconds"] = json!(*dice.one_of(&[2, 10]));
        }
        if matches!(self, Self::ShutdownHeld(_) | Self::StartingDeadlineHeld)
            || matches!(self, Self::Resumed | Self::Suspended | Self::SuspendedAndDeleted)
        {
            spec["suspend"] = json!(true);
        }
        match self {
            Self::Deleted(policy) => spec["deletionPolicy"] = json!(policy),
            Self::ShutdownAtOnce(how) => spec["shutdown"] = json!(how),
            Self::ActiveDeadline => spec["activeDeadlineSeconds"] = json!(dice.between(1, 7)),
            Self::StartingDeadline | Self::StartingDeadlineHeld | Self::StartingDeadlineUnknown => {
                spec["startingDeadlineSeconds"] = json!(dice.between(1, 7));
            }
            Self::TimeToLive => spec["ttlSecondsAfterFinished"] = json!(dice.between(0, 9)),
            Self::Values => {
                let name = format!("run-{number}");
                spec["inputFrom"] = values::input_from(&name);
                spec["result"] = values::result_to(&name);
            }
            _ => {}
        }
        spec
    }

    /// The steps after the creation, each with the wait before it.
    fn steps(self, dice: &mut Dice) -> Vec<(Duration, Step)> {
        use Step::{CreateAgain, Delete, Provide, Reapply, Replace, Shutdown, Suspend, WipeStatus};
        match self {
            Self::Resumed => vec![(dice.ms(500, 8000), Suspend(false))],
            Self::SuspendedAndDeleted => vec![(dice.ms(500, 8000), Delete)],
            Self::Toggled => vec![(dice.ms(0, 1500), Suspend(true)), (dice.ms(500, 6000), Suspend(false))],
            Self::Deleted(_) => vec![(dice.ms(0, 9000), Delete)],
            Self::RecreatedExplicit | Self::RecreatedDerived => {
                vec![(dice.ms(0, 9000), Delete), (dice.ms(0, 500), CreateAgain)]
            }
            Self::Replaced => vec![(dice.ms(0, 6000), Replace)],
            Self::Reapplied(claim) => {
                let mut steps = vec![(dice.ms(0, 6000), Reapply(claim))];
                if dice.percent(30) {
                    steps.push((dice.ms(0, 3000), Delete));
                }
                steps
            }
            Self::StatusWiped => vec![(dice.ms(500, 9000), WipeStatus)],
            Self::Shutdown(how) => {
                let mut steps = vec![(dice.ms(0, 9000), Shutdown(how))];
                if how == "Cancel" && dice.percent(25) {
                    steps.push((dice.ms(0, 3000), Shutdown("Terminate")));
                }
                steps
            }
            Self::ShutdownHeld(how) => vec![(dice.ms(0, 8000), Shutdown(how))],
            Self::Values => vec![(dice.ms(0, 3000), Provide)],
            Self::Plain
            | Self::Explicit
            | Self::ByReference
            | Self::Suspended
            | Self::Twins
            | Self::ShutdownAtOnce(_) => Vec::new(),
            Self::ActiveDeadline | Self::TimeToLive => Vec::new(),
            Self::StartingDeadline | Self::StartingDeadlineHeld | Self::StartingDeadlineUnknown => Vec::new(),
        }
    }
}

/// Each scenario and its weight.
const STORIES: [(Story, u64); 29] = [
    (Story::Plain, 30),
    (Story::Explicit, 10),
    (Story::ByReference, 8),
    (Story::Resumed, 5),
    (Story::Suspended, 2),
    (Story::SuspendedAndDeleted, 3),
    (Story::Toggled, 4),
    (Story::Deleted("Cancel"), 8),
    (Story::Deleted("Terminate"), 5),
    (Story::Deleted("Orphan"), 4),
    (Story::RecreatedExplicit, 5),
    (Story::RecreatedDerived, 4),
    (Story::Replaced, 5),
    (Story::Reapplied(OLDER), 4),
    (Story::Reapplied(ANOTHERS), 4),
    (Story::StatusWiped, 5),
    (Story::Twins, 4),
    (Story::Shutdown("Cancel"), 7),
    (Story::Shutdown("Terminate"), 5),
    (Story::ShutdownHeld("Cancel"), 2),
    (Story::ShutdownHeld("Terminate"), 2),
    (Story::ShutdownAtOnce("Cancel"), 1),
    (Story::ShutdownAtOnce("Terminate"), 1),
    (Story::ActiveDeadline, 6),
    (Story::StartingDeadline, 6),
    (Story::StartingDeadlineHeld, 2),
    (Story::StartingDeadlineUnknown, 2),
    (Story::TimeToLive, 7),
    (Story::Values, 8),
];

impl Plan {
    /// The plan of this seed for this number of executions.
    pub fn new(seed: u64, executions: usize) -> Self {
        let mut dice = Dice::new(seed);
        let window = Duration::from_millis(ROUND.max(executions as u64 * 180));
        let disturbances = disturbances(&mut dice, window);
        let phases = faults::phases(&mut dice, window);
        let mut plan = Self { executions: Vec::new(), phases, disturbances, window };
        // Each scenario occurs at least once if there are enough executions.
        let mut stories: Vec<Story> = STORIES.iter().map(|(story, _)| *story).collect();
        let weighted: Vec<Story> = STORIES
            .iter()
            .flat_map(|(story, weight)| std::iter::repeat_n(*story, usize::try_from(*weight).unwrap_or_default()))
            .collect();
        while stories.len() < executions {
            stories.push(*dice.one_of(&weighted));
        }
        for story in stories {
            if plan.executions.len() < executions {
                plan.tell(story, &mut dice);
            }
        }
        plan.spoil(executions, &mut dice);
        plan.executions.sort_by_key(|planned| planned.at);
        plan
    }

    /// Adds poison and refusals for this number of executions, each kind at least once.
    fn spoil(&mut self, executions: usize, dice: &mut Dice) {
        let window = self.milliseconds();
        for number in 0..Poison::ALL.len().max(executions / POISON_EVERY) {
            let kind = Poison::ALL.get(number).copied().unwrap_or_else(|| *dice.one_of(&Poison::ALL));
            self.executions.push(kind.planned(number, window, dice));
        }
        for number in 0..Refusal::ALL.len().max(executions / REFUSAL_EVERY) {
            let kind = Refusal::ALL.get(number).copied().unwrap_or_else(|| *dice.one_of(&Refusal::ALL));
            self.executions.push(kind.planned(number, window, dice));
        }
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX)
    }

    fn tell(&mut self, story: Story, dice: &mut Dice) {
        let number = self.executions.len();
        let name = format!("run-{number}");
        let window = self.milliseconds();
        let mut at = dice.ms(0, window);
        // The parts of inputs exist only in the default namespace.
        let namespace = if story != Story::Values && dice.percent(33) { APART } else { DEFAULT };
        let spec = story.spec(number, dice);
        match story {
            // The first resource may take long to disappear, so this scenario begins early.
            Story::RecreatedExplicit | Story::RecreatedDerived => at /= 2,
            Story::Twins => {
                at = self.with_one_leader(at, window);
                let twin = format!("{name}-twin");
                let at = at + dice.ms(0, 1500);
                self.executions.push(Planned { namespace, ..Planned::new(twin, spec.clone(), at) });
            }
            _ => {}
        }
        let steps = story.steps(dice);
        self.executions.push(Planned { namespace, steps, ..Planned::new(name, spec, at) });
    }

    /// A time near `at` at which no second leader is planned. A claim is an annotation on one resource, so only a
    /// single process keeps two resources of one explicit id apart. In a long run, starts wait for minutes, so twins
    /// come in the first part and second leaders in the second half.
    fn with_one_leader(&self, at: Duration, window: u64) -> Duration {
        if is_long(window) {
            return at.mul_f64(TWINS_UNTIL);
        }
        let margin = Duration::from_secs(3);
        self.disturbances.iter().fold(at, |at, (begin, disturbance)| match disturbance {
            Disturbance::SecondLeader(lasts) if at + margin > *begin && at < *begin + *lasts + margin => {
                begin.saturating_sub(margin)
            }
            _ => at,
        })
    }
}

/// The first part of a long run, in which twins are created.
const TWINS_UNTIL: f64 = 0.25;

/// Whether a chaos run of this many milliseconds has quiet times.
fn is_long(window: u64) -> bool {
    window >= 4 * ROUND
}

/// The same kinds in every round, at different times.
fn disturbances(dice: &mut Dice, window: Duration) -> Vec<(Duration, Disturbance)> {
    let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    // A long run has a quiet time after each round. Otherwise too little would be in flight when the next round begins.
    let stride = if is_long(window) { 2 * ROUND } else { ROUND };
    let mut all = Vec::new();
    for round in 0..window.div_ceil(stride) {
        let mut at = |start: u64, end: u64| Duration::from_millis(round * stride) + dice.ms(start, end);
        all.push((at(1500, 4000), Disturbance::RestartApiServer(Duration::from_secs(1))));
        all.push((at(14_000, 18_000), Disturbance::KillStandby));
        let second = at(12_000, 14_000);
        if !is_long(window) || second.as_millis() >= u128::from(window / 2) {
            all.push((second, Disturbance::SecondLeader(Duration::from_secs(20))));
        }
        all.push((at(28_000, 30_000), Disturbance::EndLeader));
        all.push((at(32_500, 33_500), Disturbance::StopLeader(Duration::from_secs(12))));
        all.push((at(44_500, 45_900), Disturbance::KillLeader));
    }
    all.retain(|(at, _)| *at < Duration::from_millis(window));
    all.sort_by_key(|(at, _)| *at);
    all
}

#[cfg(test)]
mod tests {
    use super::super::poison;
    use super::*;

    #[test]
    fn in_a_long_go_twins_have_started_long_before_a_second_leader_acts() {
        let plan = Plan::new(7, 5000);
        let twins = plan.executions.iter().filter(|planned| planned.name.ends_with("-twin"));
        let last = twins.map(|planned| planned.at).max().unwrap();
        let seconds = plan.disturbances.iter().filter(|(_, what)| matches!(what, Disturbance::SecondLeader(_)));
        let first = seconds.map(|(at, _)| *at).min().unwrap();
        assert!(first > last + plan.window / 5, "{last:?} and {first:?}");
    }

    #[test]
    fn a_seed_says_everything_and_another_says_something_else() {
        let plan = |seed| format!("{:?}", Plan::new(seed, 200));
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn the_plan_has_as_many_executions_as_were_asked_for_and_each_name_once() {
        for seed in 0..50 {
            let plan = Plan::new(seed, 60);
            let mut names: Vec<&str> = plan.executions.iter().map(|planned| planned.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), plan.executions.len());
            let ordinary = names.iter().filter(|name| name.starts_with("run-")).count();
            assert!((60..=61).contains(&ordinary), "{ordinary}");
        }
    }

    #[test]
    fn even_the_shortest_plan_has_every_kind_of_step_and_disturbance() {
        for seed in 0..50 {
            let plan = Plan::new(seed, 60);
            let steps: Vec<Step> = plan.executions.iter().flat_map(|planned| &planned.steps).map(|it| it.1).collect();
            let wanted = [
                Step::Suspend(true),
                Step::Delete,
                Step::CreateAgain,
                Step::Replace,
                Step::Reapply(OLDER),
                Step::Reapply(ANOTHERS),
                Step::WipeStatus,
                Step::Shutdown("Cancel"),
                Step::Shutdown("Terminate"),
                Step::Provide,
                Step::Refuse("claim"),
                Step::Refuse("status"),
                Step::RefuseRelease,
                Step::Allow,
                Step::Spoil,
                Step::OddWorkflow,
            ];
            for step in wanted {
                assert!(steps.contains(&step), "seed {seed} has no {step:?}");
            }
            for kind in Poison::ALL {
                let is_it = |planned: &Planned| planned.labels[poison::LABEL] == kind.name();
                assert!(plan.executions.iter().any(is_it), "seed {seed} has no {kind:?}");
            }
            for field in ["activeDeadlineSeconds", "startingDeadlineSeconds", "ttlSecondsAfterFinished", "shutdown"] {
                assert!(plan.executions.iter().any(|it| !it.spec[field].is_null()), "seed {seed} has no {field}");
            }
            for kind in Disturbance::KINDS {
                assert!(plan.disturbances.iter().any(|(_, it)| it.kind() == kind), "seed {seed} has no {kind}");
            }
        }
    }
}
