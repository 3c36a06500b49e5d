//! From a connection to an answer: reads a request, applies faults and the effect, writes the answer.
//!
//! hyper drops the future of a request when its client closes the connection. A request may therefore end without an
//! effect at every `await` before the effect. There is no `await` between the decision and the effect.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, future, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::api;
use crate::calls::CallKey;
use crate::clock;
use crate::control;
use crate::executions::{self, Waiting};
use crate::faults::{Mishap, When};
use crate::held;
use crate::live;
use crate::reply::{ApiError, Reply};
use crate::request::{Answer, Request, Wait};
use crate::state::Shared;

/// A larger body is refused unread. This is twice the largest input, which leaves room for the other fields of an
/// execute call.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// The content type of a stream of events.
const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

/// The path prefix of the controls.
const CONTROL: &str = "/__sim";

/// Answers requests until dropped, which also closes the connections.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // A small answer should not wait for the acknowledgement of the previous one.
                    let _ = stream.set_nodelay(true);
                    let shared = Arc::clone(&shared);
                    let service = hyper::service::service_fn(move |request| {
                        answer(Arc::clone(&shared), request)
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    // A connection error comes from the client or from a fault.
                    connections.spawn(connection.map(drop));
                }
                // Most likely out of file descriptors: other connections need time to close.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
struct Closed;

type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;

async fn answer(shared: Arc<Shared>, request: hyper::Request<Incoming>) -> Result<Response<AnswerBody>, Closed> {
    let (parts, body) = request.into_parts();
    if let Some(path) = parts.uri.path().strip_prefix(CONTROL) {
        let (body, oversized) = read(body).await?;
        if oversized {
            return Ok(whole(control::refuse_oversized()));
        }
        let query = parts.uri.query().unwrap_or_default();
        let reply = control::handle(&shared, parts.method.as_str(), path, query, &body);
        return Ok(whole(reply));
    }
    let mut request = Request::new(&parts);
    let (workspace, key) = register(&shared, &request);
    (request.body, request.oversized) = read(body).await?;
    let plan = shared.lock().faults.plan(&request, workspace.as_deref());
    for mishap in plan.before {
        match mishap {
            Mishap::Sleep(time) => tokio::time::sleep(time).await,
            Mishap::Hold => {
                held::hold(&shared, &request, workspace.as_deref(), When::BeforeEffect).await;
            }
            Mishap::Answer(reply) => return Ok(sent(&shared, &key, whole(reply))),
            Mishap::Close | Mishap::Truncate => return Err(Closed),
            // Only an open stream can end.
            Mishap::EndStream(_) => {}
        }
    }
    let (reply, feed) = match act(&shared, &request, &key) {
        Ok(Answer::Done { reply, .. }) => (reply, None),
        Ok(Answer::Wait(wait)) => (await_end(&shared, &request, wait).await, None),
        Ok(Answer::Stream(feed)) => (Reply::text(StatusCode::OK, EVENT_STREAM, String::new()), Some(feed)),
        Err(error) => (error.into(), None),
    };
    let mut stream_end = None;
    for mishap in plan.after {
        match mishap {
            Mishap::Sleep(time) => tokio::time::sleep(time).await,
            Mishap::Hold => {
                held::hold(&shared, &request, workspace.as_deref(), When::AfterEffect).await;
            }
            Mishap::Answer(reply) => return Ok(sent(&shared, &key, whole(reply))),
            Mishap::Truncate if !reply.body.is_empty() => return Ok(sent(&shared, &key, half(reply))),
            // An empty body or a stream has no half.
            Mishap::Truncate | Mishap::Close => return Err(Closed),
            Mishap::EndStream(end) => stream_end = Some(end),
        }
    }
    let response = match feed {
        Some(feed) => {
            let workspace = workspace.unwrap_or_default();
            let frames = live::body(Arc::clone(&shared), workspace, feed, stream_end);
            respond(&reply, StreamBody::new(frames))
        }
        None => whole(reply),
    };
    Ok(sent(&shared, &key, response))
}

/// Counts the arrival of a request.
fn register(shared: &Shared, request: &Request) -> (Option<String>, CallKey) {
    let state = &mut *shared.lock();
    let token = request.token.as_deref();
    let workspace = token.map(|token| state.tokens.workspace(token).to_owned());
    let key =
        CallKey { workspace: workspace.clone(), method: request.method.clone(), route: request.template().to_owned() };
    state.calls.arrived(&key);
    (workspace, key)
}

/// Applies a request's effect and counts it under one lock.
fn act(shared: &Shared, request: &Request, key: &CallKey) -> Result<Answer, ApiError> {
    let state = &mut *shared.lock();
    let answer = api::dispatch(state, request)?;
    if !matches!(answer, Answer::Done { changed: false, .. } | Answer::Stream(_)) {
        state.calls.took_effect(key);
        shared.changed.notify_waiters();
    }
    Ok(answer)
}

/// Waits for the end of an execution, at most as long as the client asked for.
async fn await_end(shared: &Shared, request: &Request, wait: Wait) -> Reply {
    let give_up = clock::after(clock::now(), wait.limit);
    loop {
        // Created before the check, so that no change in between is missed.
        let changed = shared.changed.notified();
        let time = {
            let state = &mut *shared.lock();
            let token = request.token.as_deref().unwrap_or_default();
            let workspace = state.tokens.workspace(token).to_owned();
            let (workspace, cx) = state.open(&workspace);
            let due = match executions::look(workspace, &cx, &wait) {
                Waiting::Over(reply) => return reply,
                Waiting::Until(due) => due,
            };
            if cx.now >= give_up {
                return executions::waited_too_long(&cx);
            }
            clock::between(cx.now, due.min(give_up))
        };
        future::select(std::pin::pin!(changed), std::pin::pin!(tokio::time::sleep(time))).await;
    }
}

/// Reads a body to its end, but keeps at most `MAX_BODY`. Returns whether the body was larger.
async fn read(mut body: Incoming) -> Result<(Bytes, bool), Closed> {
    let mut kept = Vec::new();
    let mut oversized = false;
    while let Some(frame) = body.frame().await {
        // The client disconnected in the middle of its request.
        let frame = frame.map_err(|_| Closed)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        oversized |= kept.len() + data.len() > MAX_BODY;
        if !oversized {
            kept.extend_from_slice(&data);
        }
    }
    Ok((kept.into(), oversized))
}

/// Counts an answer.
fn sent(shared: &Shared, key: &CallKey, response: Response<AnswerBody>) -> Response<AnswerBody> {
    let status = response.status().as_u16();
    shared.lock().calls.answered(key, status);
    response
}

fn whole(reply: Reply) -> Response<AnswerBody> {
    let body = Full::new(reply.body.clone()).map_err(|never: Infallible| match never {});
    respond(&reply, body)
}

/// An answer that announces its full length and breaks off in the middle.
fn half(reply: Reply) -> Response<AnswerBody> {
    let length = reply.body.len();
    let first = Frame::data(reply.body.slice(..length / 2));
    let rest = async {
        // hyper discards unwritten data when a body fails: leave time to write.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(io::Error::other("truncated on purpose"))
    };
    let frames = stream::once(future::ready(Ok(first))).chain(stream::once(rest));
    let mut response = respond(&reply, StreamBody::new(frames));
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

fn respond<B>(reply: &Reply, body: B) -> Response<AnswerBody>
where
    B: Body<Data = Bytes, Error = io::Error> + Send + 'static,
{
    let mut builder = Response::builder().status(reply.status);
    if let Some(content_type) = &reply.content_type {
        builder = builder.header(CONTENT_TYPE, content_type);
    }
    for (name, value) in &reply.headers {
        builder = builder.header(name, value);
    }
    // A fault may contain an invalid header.
    builder.body(body.boxed_unsync()).unwrap_or_else(|error| {
        let text = Full::new(Bytes::from(error.to_string()));
        let text = text.map_err(|never: Infallible| match never {});
        let mut response = Response::new(text.boxed_unsync());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}
