//! Limits on sizes, numbers and spellings.

use serde_json::{Value, json};

use crate::support::{Sim, problem};

const MIB: usize = 1024 * 1024;

fn input_of(bytes: usize) -> Value {
    // `{"x":""}` takes eight bytes.
    json!({ "input": { "x": "x".repeat(bytes - 8) } })
}

#[tokio::test]
async fn an_input_of_2_mb_is_accepted_and_a_larger_one_refused() {
    let sim = Sim::with_job(json!({})).await;
    assert_eq!(sim.execute(input_of(2 * MIB)).await.0, 200);
    let refused = sim.execute(input_of(2 * MIB + 1)).await;
    assert_eq!(problem(&refused).0, json!(["body", "input"]));
}

#[tokio::test]
async fn a_body_above_4_mib_is_refused_with_413() {
    let sim = Sim::with_job(json!({})).await;
    let body = json!({ "extensions": { "x": "x".repeat(4 * MIB) } });
    let (status, body) = sim.execute(body).await;
    assert_eq!((status, body), (413, json!({ "detail": "Request Entity Too Large" })));
    // A control is refused as well, and has no effect.
    let spec = json!({ "name": "large", "input_schema": { "description": "x".repeat(4 * MIB) } });
    let (status, body) = sim.call("POST", "/__sim/workflows", Some(spec)).await;
    assert_eq!((status, body), (413, json!({ "error": "the body is too large" })));
    assert_eq!(sim.get("/v1/workflows/large").await.0, 404);
}

#[tokio::test]
async fn an_execution_id_has_1_to_256_characters() {
    let sim = Sim::with_job(json!({})).await;
    let with_id = |id: String| json!({ "execution_id": id });
    assert_eq!(sim.execute(with_id("i".repeat(256))).await.0, 200);
    let long = sim.execute(with_id("i".repeat(257))).await;
    let location = json!(["body", "execution_id"]);
    assert_eq!(problem(&long), (location.clone(), "string_too_long".to_owned()));
    let empty = sim.execute(with_id(String::new())).await;
    assert_eq!(problem(&empty), (location, "string_too_short".to_owned()));
}

#[tokio::test]
async fn an_execution_id_consists_of_letters_digits_underscore_and_hyphen() {
    let sim = Sim::with_job(json!({})).await;
    assert_eq!(sim.execute(json!({ "execution_id": "aZ_0-9" })).await.0, 200);
    for id in ["a b", "a.b", "a:b", "a/b", "é", "a\n"] {
        let refused = sim.execute(json!({ "execution_id": id })).await;
        assert_eq!(problem(&refused).1, "string_pattern_mismatch", "{id:?}");
    }
}

#[tokio::test]
async fn page_sizes_lie_between_1_and_1000() {
    let sim = Sim::start().await;
    for path in [
        "/v1/workflows?limit",
        "/v1/workflows/registrations?limit",
        "/v1/workflows/runs?page_size",
        "/v1/workflows/events/list?limit",
    ] {
        for (size, kind) in
            [("0", "greater_than_equal"), ("1001", "less_than_equal"), ("many", "int_parsing"), ("", "int_parsing")]
        {
            let refused = sim.get(&format!("{path}={size}")).await;
            assert_eq!(problem(&refused).1, kind, "{path}={size}");
        }
        for size in ["1", "1000"] {
            let (status, body) = sim.get(&format!("{path}={size}")).await;
            assert_eq!(status, 200, "{body}");
        }
    }
}

#[tokio::test]
async fn a_display_name_has_at_most_128_characters_and_is_not_blank() {
    let sim = Sim::with_job(json!({})).await;
    let put = async |name: String| sim.put("/v1/workflows/job", json!({ "display_name": name })).await;
    assert_eq!(put("ü".repeat(128)).await.0, 200);
    let location = json!(["body", "display_name"]);
    let long = put("ü".repeat(129)).await;
    assert_eq!(problem(&long), (location.clone(), "string_too_long".to_owned()));
    for blank in ["", "  "] {
        let refused = put(blank.to_owned()).await;
        assert_eq!(problem(&refused), (location.clone(), "value_error".to_owned()));
    }
}

#[tokio::test]
async fn a_tag_has_at_most_100_characters_and_is_not_blank() {
    let sim = Sim::with_job(json!({})).await;
    let put = async |tag: String| sim.put("/v1/workflows/job", json!({ "tags": ["fine", tag] })).await;
    assert_eq!(put("t".repeat(100)).await.0, 200);
    assert_eq!(put(format!("  {}  ", "t".repeat(100))).await.0, 200);
    let location = json!(["body", "tags", 1]);
    let long = put("t".repeat(101)).await;
    assert_eq!(problem(&long), (location.clone(), "string_too_long".to_owned()));
    let blank = put(" ".to_owned()).await;
    assert_eq!(problem(&blank), (location, "value_error".to_owned()));
}

#[tokio::test]
async fn the_number_of_tags_has_no_limit() {
    let sim = Sim::with_job(json!({})).await;
    let tags: Vec<String> = (0..1000).map(|n| format!("tag{n}")).collect();
    let (status, body) = sim.put("/v1/workflows/job", json!({ "tags": tags })).await;
    assert_eq!((status, &body["workflow"]["tags"]), (200, &json!(tags)));
}

#[tokio::test]
async fn bulk_archive_takes_up_to_100_uuids() {
    let sim = Sim::start().await;
    for path in ["/v1/workflows/archive", "/v1/workflows/unarchive"] {
        let ids = |count| {
            let id = "019b2bd7-96e7-7219-8c0b-45a73da50088";
            json!({ "workflow_ids": vec![id; count] })
        };
        assert_eq!(sim.put(path, ids(0)).await.0, 200);
        assert_eq!(sim.put(path, ids(100)).await.0, 200);
        let refused = sim.put(path, ids(101)).await;
        let location = json!(["body", "workflow_ids"]);
        assert_eq!(problem(&refused), (location, "too_long".to_owned()));
        let refused = sim.put(path, json!({ "workflow_ids": ["job"] })).await;
        let location = json!(["body", "workflow_ids", 0]);
        assert_eq!(problem(&refused), (location, "uuid_parsing".to_owned()));
    }
}

#[tokio::test]
async fn runs_are_filtered_by_at_most_20_tags_and_3_search_keys() {
    let sim = Sim::start().await;
    for (name, value, max) in [("workflow_tags", "t", 20), ("search_key", "k:v", 3)] {
        let query = |count| vec![format!("{name}={value}"); count].join("&");
        let (status, _) = sim.get(&format!("/v1/workflows/runs?{}", query(max))).await;
        assert_eq!(status, 200);
        let refused = sim.get(&format!("/v1/workflows/runs?{}", query(max + 1))).await;
        assert_eq!(problem(&refused), (json!(["query", name]), "too_long".to_owned()));
    }
    let refused = sim.get("/v1/workflows/runs?search_key=no-value").await;
    assert_eq!(problem(&refused).1, "string_pattern_mismatch");
}

#[tokio::test]
async fn the_execution_timeout_is_one_hour_by_default_and_shown_in_float_seconds() {
    let sim = Sim::start().await;
    sim.register(json!({ "name": "default" })).await;
    sim.register(json!({ "name": "short", "execution_timeout_s": 1.5 })).await;
    let timeout = async |name: &str| {
        let path = format!("/v1/workflows/registrations?workflow_name={name}");
        let body = sim.ok("GET", &path, None).await;
        let timeout = &body["workflow_registrations"][0]["definition"]["execution_timeout"];
        timeout.to_string()
    };
    assert_eq!(timeout("default").await, "3600.0");
    assert_eq!(timeout("short").await, "1.5");
}

#[tokio::test]
async fn an_execution_is_gone_after_its_retention() {
    let sim = Sim::with_job(json!({})).await;
    sim.run("old").await;
    sim.ok("DELETE", "/__sim/executions/old", None).await;
    let (status, body) = sim.get("/v1/workflows/executions/old").await;
    assert_eq!((status, &body["code"]), (404, &json!("WF_1100")));
    assert_eq!(sim.cancel("old").await.0, 404);
    assert!(sim.runs("").await.is_empty());
    assert!(sim.events("old").await.is_empty());
}

#[tokio::test]
async fn unknown_query_parameters_are_ignored() {
    let sim = Sim::with_job(json!({})).await;
    sim.run("a").await;
    assert_eq!(sim.runs("limit=0&whatever=1").await.len(), 1);
}
