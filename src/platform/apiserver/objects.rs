//! Reads whole objects, which may be long, within a limit of memory.

use futures::AsyncReadExt;
use kube::api::{GetParams, ListParams, Request};
use kube::{Client, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::call::call;
use super::error::Error;
use crate::answer_memory::{Held, Room, SHORT};

/// The longest object that the API server stores, in bytes: etcd takes requests of up to 1.5 MiB.
const LONGEST_OBJECT: usize = 3 << 19;

/// Reads an object of any depth and content, and reserves memory for it. None if there is no such object.
///
/// # Errors
/// See [`Error`].
pub async fn get<K: Resource<DynamicType = ()>, T: DeserializeOwned>(
    client: &Client,
    room: &Room,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<(T, Held)>, Error> {
    let request = Request::new(K::url_path(&(), namespace)).get(name, &GetParams::default());
    match read(client, room, request).await {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the object through a list of one, for kinds that the operator has the right to list but not to get.
///
/// # Errors
/// See [`Error`].
pub async fn get_by_list<K: Resource<DynamicType = ()>, T: DeserializeOwned>(
    client: &Client,
    room: &Room,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<(T, Held)>, Error> {
    #[derive(Deserialize)]
    #[serde(bound = "T: DeserializeOwned")]
    struct List<T> {
        items: Option<Vec<T>>,
    }
    let this = ListParams::default().fields(&format!("metadata.name={name}"));
    let request = Request::new(K::url_path(&(), namespace)).list(&this);
    let (list, held): (List<T>, Held) = read(client, room, request).await?;
    Ok(list.items.unwrap_or_default().into_iter().next().map(|object| (object, held)))
}

/// Sends a request and decodes a response that may be long. Takes the memory from `room`.
async fn read<T: DeserializeOwned>(
    client: &Client,
    room: &Room,
    request: Result<axum::http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<(T, Held), Error> {
    let request = request.map_err(|error| Error::Kube(Box::new(kube::Error::BuildRequest(error))))?;
    let reading = async {
        let mut answer = std::pin::pin!(client.request_stream(request).await?);
        let (mut text, mut held) = (Vec::new(), Held::default());
        loop {
            let mut part = [0; 16 << 10];
            let length = answer.read(&mut part).await.map_err(kube::Error::ReadEvents)?;
            if length == 0 {
                return Ok((text, held));
            }
            if text.len() <= SHORT && text.len() + length > SHORT {
                let full = || std::io::Error::other("too many long objects are being read at a time");
                held = room.take(LONGEST_OBJECT).await.ok_or_else(|| kube::Error::ReadEvents(full()))?;
            }
            text.extend_from_slice(&part[..length]);
        }
    };
    let (text, held) = call(reading).await?;
    match serde_json::from_slice(&text) {
        Ok(object) => Ok((object, held.cut_to(text.len()))),
        Err(error) => Err(Error::Kube(Box::new(kube::Error::SerdeError(error)))),
    }
}
