//! Several operators share one Lease: one acts, another takes over soon, and the former leader does nothing more.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use mistral_workflows_operator::{operator, platform};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::*;

const EXECUTE: (&str, &str) = ("POST", "/v1/workflows/{workflow_identifier}/execute");
const LEASE: &str = "operator";
/// Allows for the 90 s in which the outcome of a call may be unknown, the takeover, and a busy machine.
const AFTER_DOUBT: Duration = Duration::from_secs(200);
/// Allows for fifteen seconds and a busy machine.
const AFTER_KILL: Duration = Duration::from_secs(20);
/// Allows for two seconds and a busy machine.
const AFTER_STOP: Duration = Duration::from_secs(5);

fn leases(world: &World) -> Api<Lease> {
    Api::namespaced(world.client.clone(), &world.namespace)
}

/// A world with a Lease that nobody holds. Without a Lease, the first operator would wait for ten seconds.
async fn world(name: &str) -> World {
    let world = World::new(name).await;
    let lease = json!({ "metadata": { "name": LEASE, "labels": { "kept": "yes" } }, "spec": { "holderIdentity": "" } });
    leases(&world).create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await.unwrap();
    world
}

fn candidate(world: &World, environment: &[(&str, &str)]) -> Process {
    let log = "debug,hyper_util=info,h2=info,tower=info,rustls=info";
    world.process_with(&["--lease-name", LEASE, "--lease-namespace", &world.namespace, "--log-level", log], environment)
}

async fn wait_for_readiness(process: &Process, wanted: impl Fn(&str) -> bool) {
    until(SOON, "readiness", async || {
        let (status, body) = process.ask("/readyz").await?;
        (status == 200 && wanted(&body)).then_some(())
    })
    .await;
}

async fn leader(world: &World, environment: &[(&str, &str)]) -> Process {
    let process = candidate(world, environment);
    wait_for_readiness(&process, |body| body == "ready\n").await;
    process
}

/// An operator on standby, which reports the leader.
async fn standby(world: &World, environment: &[(&str, &str)]) -> Process {
    let process = candidate(world, environment);
    let holder = leases(world).get(LEASE).await.unwrap().spec.unwrap().holder_identity.unwrap();
    wait_for_readiness(&process, |body| body == format!("ready (standby; {holder} leads)\n")).await;
    process
}

async fn leads(process: &Process) -> bool {
    process.ask("/metrics").await.unwrap().1.contains("\nmistral_workflows_leader 1\n")
}

async fn ends_with_failure(process: &mut Process, limit: Duration) {
    let end = until(limit, "the end of the process", async || process.child.wait_exit(Duration::ZERO).unwrap()).await;
    assert_eq!(end.code(), Some(1), "{}", process.log());
}

/// How long a new execution takes until it has started.
async fn time_to_act(world: &World, name: &str, limit: Duration) -> Duration {
    let begun = Instant::now();
    world.execute(name, json!({ "workflowIdentifier": "echo" })).await;
    world.wait(name, limit, |object| is_true(object, "Started")).await;
    begun.elapsed()
}

#[tokio::test]
async fn of_two_operators_one_acts_and_the_other_takes_over_soon_after_a_kill_and_sooner_after_a_clean_stop() {
    let world = world("leader").await;
    let mut first = leader(&world, &[]).await;
    let mut second = standby(&world, &[]).await;
    assert!(leads(&first).await && !leads(&second).await);
    time_to_act(&world, "first", SOON).await;
    assert!(first.log().contains("/first}") && !second.log().contains("/first}"));

    first.child.kill().unwrap();
    let after_kill = time_to_act(&world, "after-kill", AFTER_KILL).await;
    assert!(leads(&second).await);
    let _third = standby(&world, &[]).await;
    second.child.signal("TERM").unwrap();
    let after_stop = time_to_act(&world, "after-stop", AFTER_STOP).await;
    println!(
        "until the next operator has started a run: {after_kill:?} after a kill, {after_stop:?} after a clean stop"
    );
    let end = until(SOON, "the end", async || second.child.wait_exit(Duration::ZERO).unwrap()).await;
    assert!(end.success(), "{end}");
    assert_eq!(world.api.starts().await, 3);
    assert_eq!(leases(&world).get(LEASE).await.unwrap().metadata.labels.unwrap()["kept"], "yes");
}

#[tokio::test]
#[ignore = "two minutes, for the figures: cargo test --test it failover -- --ignored --nocapture"]
async fn failover_times() {
    let world = world("failover").await;
    let mut present = leader(&world, &[]).await;
    for (how, limit) in [("KILL", AFTER_KILL), ("TERM", AFTER_STOP)] {
        let mut times = Vec::new();
        for n in 0..5 {
            let next = standby(&world, &[]).await;
            present.child.signal(how).unwrap();
            times.push(time_to_act(&world, &format!("{}-{n}", how.to_lowercase()), limit).await);
            present = next;
        }
        times.sort();
        println!("until the next operator has started a run after {how}: median {:?} of {times:?}", times[2]);
    }
}

#[tokio::test]
async fn fifty_executions_with_the_leader_killed_amid_them_are_started_once_each() {
    let world = world("leader-fifty").await;
    let mut first = leader(&world, &[]).await;
    let _second = standby(&world, &[]).await;
    for n in 0..50 {
        world.execute(&format!("run-{n}"), json!({ "workflowIdentifier": "slow", "input": { "n": n } })).await;
        if n == 30 {
            until(SOON, "some starts", async || (world.api.starts().await >= 5).then_some(())).await;
            first.child.kill().unwrap();
        }
    }
    for n in 0..50 {
        let done = world.wait(&format!("run-{n}"), AFTER_DOUBT, is_finished).await;
        assert_eq!(result(&done), Some(json!({ "n": n })));
    }
    let runs = world.api.executions().await;
    assert_eq!(runs.len(), 50);
    for run in runs {
        assert_eq!(run["starts"], 1, "{run}");
    }
}

/// The leader is stopped at a failpoint by which it has sent so many calls, another finishes the run, and the first
/// wakes up.
async fn stopped_at(point: &str, sent: u64, meanwhile: impl AsyncFn(&World)) {
    let world = world("leader-stopped").await;
    let mut first = leader(&world, &[("OPERATOR_FAILPOINTS", &format!("{point}=stop"))]).await;
    let second = standby(&world, &[]).await;
    world.execute("run", json!({ "workflowIdentifier": "echo", "input": { "n": 1 } })).await;
    until(SOON, "the process to stop", async || is_stopped(first.child.pid()).then_some(())).await;
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, sent);
    meanwhile(&world).await;
    let done = world.wait("run", AFTER_DOUBT, is_finished).await;
    assert_eq!(ready_reason(&done), Some("Completed"), "{:#?}", done.status);
    let version = |object: WorkflowExecution| object.metadata.resource_version;
    let before = version(world.executions().get("run").await.unwrap());

    first.child.signal("CONT").unwrap();
    ends_with_failure(&mut first, SOON).await;
    assert!(first.log().contains("this process no longer holds the Lease"), "{}", first.log());
    assert_eq!(version(world.executions().get("run").await.unwrap()), before, "the first has written");
    let [run] = &world.api.executions().await[..] else { panic!("one execution id") };
    assert_eq!(run["starts"], 1);
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 1);
    assert!(leads(&second).await);
}

#[tokio::test]
async fn a_leader_stopped_between_claim_and_call_wakes_up_to_send_nothing_and_ends() {
    stopped_at("failpoint-claimed", 0, async |_| ()).await;
}

#[tokio::test]
async fn a_leader_stopped_for_longer_than_its_term_sends_nothing_although_its_claim_is_young() {
    let world = world("leader-young").await;
    let mut first = leader(&world, &[("OPERATOR_FAILPOINTS", "failpoint-claimed=stop")]).await;
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    until(SOON, "the process to stop", async || is_stopped(first.child.pid()).then_some(())).await;
    // The term ends after 7 seconds, while the claim would still allow the call for 15.
    tokio::time::sleep(Duration::from_secs(8)).await;
    first.child.signal("CONT").unwrap();
    ends_with_failure(&mut first, SOON).await;
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 0);
}

#[tokio::test]
async fn a_run_left_in_doubt_is_started_by_leaders_of_which_none_outlives_the_doubt() {
    let world = world("leader-brief").await;
    let mut first = leader(&world, &[("OPERATOR_FAILPOINTS", "failpoint-claimed=kill")]).await;
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    until(SOON, "the first to be killed", async || first.child.wait_exit(Duration::ZERO).unwrap()).await;
    // Ten seconds until it leads, and then less than the 90 s that a call may be in flight.
    let life = Duration::from_secs(50);
    let mut started = false;
    for _ in 0..5 {
        let mut next = candidate(&world, &[]);
        let end = Instant::now() + life;
        while !started && Instant::now() < end {
            started = is_true(&world.executions().get("run").await.unwrap(), "Started");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        next.child.kill().unwrap();
    }
    assert!(started, "{:#?}", world.executions().get("run").await.unwrap());
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_leader_stopped_after_the_call_wakes_up_to_write_nothing_and_ends() {
    stopped_at("failpoint-answered", 1, async |_| ()).await;
}

#[tokio::test]
async fn what_was_created_before_its_term_is_asked_about_first_even_if_the_claim_is_lost() {
    stopped_at("failpoint-answered", 1, async |world| {
        let none = json!({ "metadata": { "annotations": { "workflows.mistral.ai/claim": null } } });
        world.patch("run", none).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_leader_whose_lease_somebody_else_writes_ends_at_once_and_so_does_one_whose_lease_is_deleted() {
    let world = world("leader-taken").await;
    let mut first = leader(&world, &[]).await;
    let theirs = Patch::Merge(json!({ "spec": { "holderIdentity": "somebody", "leaseDurationSeconds": 1 } }));
    leases(&world).patch(LEASE, &PatchParams::default(), &theirs).await.unwrap();
    ends_with_failure(&mut first, Duration::from_secs(5)).await;
    assert!(first.log().contains("its holder is \"somebody\" now"), "{}", first.log());

    let mut second = leader(&world, &[]).await;
    leases(&world).delete(LEASE, &DeleteParams::default()).await.unwrap();
    ends_with_failure(&mut second, Duration::from_secs(5)).await;
    assert!(second.log().contains("it was deleted"), "{}", second.log());
    // The Lease is gone, so the next operator creates it.
    let third = leader(&world, &[]).await;
    assert!(leads(&third).await);
}

/// A TCP proxy to the API server that can be cut.
struct Wire {
    kubeconfig: PathBuf,
    /// `None` once the proxy is cut.
    ends: Arc<Mutex<Option<Vec<TcpStream>>>>,
    /// How often the proxy has gone silent. Earlier connections stay open, but pass no more data.
    silences: Arc<AtomicUsize>,
}

impl Wire {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (kubeconfig, port) = kubeconfig_with_port(listener.local_addr().unwrap().port());
        let ends = Arc::new(Mutex::new(Some(Vec::new())));
        let silences = Arc::new(AtomicUsize::new(0));
        let wire = Self { kubeconfig, ends: Arc::clone(&ends), silences: Arc::clone(&silences) };
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let far = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
                let connected = silences.load(Ordering::SeqCst);
                let pass = |mut from: TcpStream, mut to: TcpStream| {
                    let silences = Arc::clone(&silences);
                    std::thread::spawn(move || {
                        let mut bytes = [0; 16_384];
                        while let Ok(count @ 1..) = from.read(&mut bytes) {
                            if silences.load(Ordering::SeqCst) == connected && to.write_all(&bytes[..count]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                    });
                };
                let Some(ends) = &mut *ends.lock().unwrap() else { continue };
                ends.extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                pass(near.try_clone().unwrap(), far.try_clone().unwrap());
                pass(far, near);
            }
        });
        wire
    }

    fn fall_silent(&self) {
        self.silences.fetch_add(1, Ordering::SeqCst);
    }

    fn cut(&self) {
        for end in self.ends.lock().unwrap().take().unwrap() {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

#[tokio::test]
async fn a_leader_that_cannot_renew_ends_before_another_acts() {
    let world = world("leader-cut").await;
    let wire = Wire::new();
    let mut first = leader(&world, &[("KUBECONFIG", wire.kubeconfig.to_str().unwrap())]).await;
    let second = standby(&world, &[]).await;
    wire.cut();
    let begun = Instant::now();
    ends_with_failure(&mut first, AFTER_KILL).await;
    println!("a leader without the API server ends after {:?}", begun.elapsed());
    assert!(first.log().contains("it was not renewed for 7 s"), "{}", first.log());
    assert!(!leads(&second).await);
    wait_for_readiness(&second, |body| body == "ready\n").await;
    time_to_act(&world, "next", SOON).await;
}

#[tokio::test]
async fn the_lease_is_renewed_on_connections_of_its_own() {
    let world = world("leader-own").await;
    let (wire, of_lease) = (Wire::new(), Wire::new());
    let client = async |wire: &Wire| {
        let kubeconfig = Kubeconfig::read_from(&wire.kubeconfig).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        kube::Client::try_from(platform::apiserver::tuned(config)).unwrap()
    };
    let (name, namespace) = (LEASE.to_owned(), world.namespace.clone());
    let client_of_lease = client(&of_lease).await;
    let lease = platform::leader::elector::LeaseConfig { name, namespace, client: client_of_lease };
    let config = operator::Config {
        max_requests_per_second: 50,
        input_secrets_need_label: false,
        allow_base_urls: vec![world.api.url.parse().unwrap()],
        namespaces: vec![world.namespace.clone()],
        listen: None,
        metrics_workflows: 0,
        leadership: operator::Leadership::Elected(lease),
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(operator::run(config, client(&wire).await, stop.clone()));
    world.wait_for_workspace("default", "Connected").await;
    let renewed = async || leases(&world).get(LEASE).await.unwrap().spec.unwrap().renew_time.unwrap().0;
    wire.cut();
    let cut = renewed().await;
    let limit = Duration::from_secs(15);
    until(limit, "renewals", async || (renewed().await.duration_since(cut).as_secs() >= 6).then_some(())).await;
    assert!(!running.is_finished());
    of_lease.cut();
    let end = tokio::time::timeout(limit, running).await.expect("the end of a leader that cannot renew").unwrap();
    assert!(end.unwrap_err().to_string().contains("it was not renewed"));
    drop(stop);
}

#[tokio::test]
async fn an_operator_whose_watches_fall_silent_sees_again_within_two_minutes() {
    let world = World::new("leader-silent").await;
    let wire = Wire::new();
    // Without leader election: a leader may also notice by its Lease, but only if the Lease uses the same connections.
    let _process = world.process(&[("KUBECONFIG", wire.kubeconfig.to_str().unwrap())]);
    time_to_act(&world, "before", SOON).await;
    wire.fall_silent();
    let blind = time_to_act(&world, "after", 2 * SOON).await;
    println!("an operator whose watches fell silent saw again after {blind:?}");
    assert_eq!(world.api.starts().await, 2);
}

/// A client that may read Leases, but only in this world.
async fn reader_of_leases(world: &World) -> (Account, kube::Client) {
    let account = Account::new(world).await;
    account.may(&["list", "get"].map(|verb| ("coordination.k8s.io", "leases", verb))).await;
    let kubeconfig = Kubeconfig::read_from(&account.kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let client = kube::Client::try_from(platform::apiserver::tuned(config)).unwrap();
    until(SOON, "the rights", async || {
        let api: Api<Lease> = Api::namespaced(client.clone(), &world.namespace);
        api.list(&Default::default()).await.is_ok().then_some(())
    })
    .await;
    (account, client)
}

#[tokio::test]
async fn outside_of_a_pod_an_operator_does_not_act_beside_a_leader_unless_it_is_told_to() {
    let world = world("leader-outside").await;
    let mut first = leader(&world, &[]).await;
    let (account, client) = reader_of_leases(&world).await;
    let mut beside = world.process(&[("LEASE_NAME", "mistral-workflows-operator")]);
    ends_with_failure(&mut beside, SOON).await;
    let said = beside.log();
    assert!(said.contains("another operator leads in this cluster") && said.contains("--lease-name \"\""), "{said}");
    assert_eq!(said.matches("runs outside of a pod").count(), 1, "{said}");
    assert!(!said.contains("there is no leader election"), "{said}");

    // The account sees the Leases of this world alone.
    let namespaces = [world.namespace.clone()];
    let other = platform::leader::others::leads(&client, &namespaces).await.unwrap().unwrap();
    assert_eq!(other.lease, format!("{}/{LEASE}", world.namespace));
    assert_eq!(Some(other.holder), leases(&world).get(LEASE).await.unwrap().spec.unwrap().holder_identity);
    let release = ["release-finalizers", "--namespace", &world.namespace];
    let (_, said) = run_as(&account, &release).await;
    assert!(said.contains("an operator is at work") && said.contains(&other.lease), "{said}");

    first.child.kill().unwrap();
    assert_eq!(platform::leader::others::leads(&client, &namespaces).await.unwrap(), None, "nobody renews the Lease");
    let (_, said) = run_as(&account, &release).await;
    assert!(!said.contains("is at work"), "{said}");
}

#[tokio::test]
async fn what_was_created_while_an_operator_looked_for_a_leader_is_asked_about_first() {
    let world = World::new("leader-looks").await;
    // An operator that is gone has left its Lease, so the look takes eleven seconds. The account sees no other Leases.
    let lease = json!({ "metadata": { "name": LEASE }, "spec": { "holderIdentity": "gone" } });
    let ours = PostParams { field_manager: Some(platform::names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
    leases(&world).create(&ours, &serde_json::from_value(lease).unwrap()).await.unwrap();
    let account = Account::new(&world).await;
    account.may(&[("*", "*", "*")]).await;
    account.may_in_all(&[("", "namespaces", "get")]).await;
    let kubeconfig = account.kubeconfig.to_str().unwrap();
    let process = world.process(&[("LEASE_NAME", LEASE), ("KUBECONFIG", kubeconfig)]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.api.arrivals(None).await, 0, "it looks");
    // The API does not answer whether there is a run.
    let get = ("GET", "/v1/workflows/executions/{execution_id}");
    world
        .api
        .faults(json!({ "faults": [{ "method": get.0, "route": get.1, "kind": { "error": { "status": 503 } } }] }))
        .await;
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    until(2 * SOON, "a question", async || (world.api.arrivals(Some(get)).await > 0).then_some(())).await;
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 0, "{}", process.log());
    world.api.heal().await;
    world.wait("run", SOON, |object| is_true(object, "Started")).await;
    assert_eq!(world.api.starts().await, 1);
}

/// Runs the program with the rights of this account. Returns whether it succeeded, and its output.
async fn run_as(account: &Account, arguments: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mistral-workflows-operator"));
    command.args(arguments).env("KUBECONFIG", &account.kubeconfig).kill_on_drop(true);
    let output = tokio::time::timeout(SOON, command.output()).await.expect("an end").unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[tokio::test]
async fn a_lease_in_a_namespace_that_does_not_exist_is_said_and_no_reason_to_be_ready() {
    let world = World::new("leader-nowhere").await;
    let process = world.process_with(&["--lease-name", LEASE, "--lease-namespace", "no-such-namespace"], &[]);
    until(SOON, "the reason", async || {
        let (status, body) = process.ask("/readyz").await?;
        (status == 503 && body.contains("\"no-such-namespace\" not found")).then_some(())
    })
    .await;
}
