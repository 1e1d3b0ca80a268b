//! The one rule by which a document is searched for, whoever searches: a flight asks one place after the other, `doctor` all of
//! them at once, and both weigh the answers here.
//!
//! A place that does not have the document sends the search to the next one: no such page, a redirect (never followed), a login,
//! a page, JSON of another kind, a place that cannot be asked. What ends the search is trouble that passes (a server's 5xx and
//! 429, a broken connection), because it must not change who is asked, and a document for somebody else.

use std::fmt;
use std::time::Duration;

use super::document::{self, NotUsed, ResourceDocument};
use super::oddity::{Document, Oddity};
use super::{Error, ResourceMetadata};
use crate::oauth::{AuthorizationServer, Challenge, Issuer, Members, Resource, ServerUrl, host_in};
use crate::outbound::{self, Answer};

/// A place and its answer.
pub(crate) struct FetchedDocument {
    pub(crate) url: String,
    pub(crate) answer: Result<Answered, outbound::Error>,
}

/// An answer that is not weighed yet.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) date: Option<i64>,
    pub(super) retry_after: Option<Duration>,
    /// The text of the JSON, or why there is none.
    pub(super) text: Result<String, &'static str>,
}

impl Answered {
    pub(super) fn of(answer: &Answer) -> Self {
        let text = if answer.status == 200 { answer.json_text().map(str::to_owned) } else { Err("") };
        Self { status: answer.status, date: answer.date(), retry_after: answer.retry_after(), text }
    }
}

impl FetchedDocument {
    /// Did the server answer with a document, valid or not?
    pub(crate) fn is_there(&self) -> bool {
        matches!(&self.answer, Ok(answered) if answered.status == 200)
    }

    /// The JSON document, if the answer has one.
    pub(crate) fn json(&self) -> Option<serde_json::Value> {
        let answered = self.answer.as_ref().ok().filter(|answered| answered.status == 200)?;
        serde_json::from_str(answered.text.as_ref().ok()?).ok()
    }
}

impl fmt::Display for FetchedDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = crate::oauth::quoted_words(&self.url);
        match &self.answer {
            Ok(answered) => write!(f, "{url} answers {}", answered.status),
            Err(error) => write!(f, "{url}: {error}"),
        }
    }
}

/// A search and what it found odd so far.
pub(crate) struct Search {
    document: Document,
    oddities: Vec<(String, Oddity)>,
}

impl Search {
    pub(crate) fn of(document: Document) -> Self {
        Self { document, oddities: Vec::new() }
    }

    /// The places that may have the metadata of a protected resource, in the order in which they count: the one that the
    /// challenge names, and the well-known ones.
    pub(crate) fn places(&mut self, challenge: &Challenge, server: &ServerUrl) -> Vec<ServerUrl> {
        let mut places = Vec::new();
        match challenge.metadata_place() {
            None => {}
            Some(Ok(named)) => places.push(named),
            Some(Err(why)) => {
                let named = challenge.resource_metadata.as_deref().unwrap_or_default();
                self.oddities.push((named.to_owned(), Oddity::BadUrl(why)));
            }
        }
        for place in Resource::metadata_urls(server) {
            if places.iter().all(|known| known.as_str() != place.as_str()) {
                places.push(place);
            }
        }
        places
    }

    /// Weighs the answer of a place of resource metadata. `None` sends the search to the next place. Fails if it must end here:
    /// the document does not stand for this server, or the failure may pass.
    pub(crate) fn resource(
        &mut self,
        seen: &FetchedDocument,
        place: &ServerUrl,
        server: &ServerUrl,
    ) -> Result<Option<ResourceMetadata>, Error> {
        self.weigh(seen, |members| ResourceDocument::read(members)?.checked(place, server).map_err(NotUsed::Ends))
    }

    /// The same for a place of the metadata of an authorization server. Fails also if the document is for another issuer.
    pub(crate) fn server(
        &mut self,
        seen: &FetchedDocument,
        issuer: &Issuer,
    ) -> Result<Option<AuthorizationServer>, Error> {
        self.weigh(seen, |members| document::server(members, issuer))
    }

    /// Weighs the answer of a place. `None` sends the search to the next place. Fails if it must end here.
    fn weigh<D>(
        &mut self,
        seen: &FetchedDocument,
        read: impl FnOnce(&Members<'_>) -> Result<D, NotUsed>,
    ) -> Result<Option<D>, Error> {
        let document = self.document;
        let answered = match &seen.answer {
            Ok(answered) => answered,
            Err(error) if is_not_there(error) => return Ok(self.odd(seen, Oddity::Refused(error.clone()))),
            Err(error) => return Err(Error::Outbound { document, error: error.clone() }),
        };
        match answered.status {
            200 => {}
            status @ (429 | 500..) => {
                let (host, retry_after) = (host_in(&seen.url), answered.retry_after);
                return Err(Error::Busy { document, host, status, retry_after });
            }
            status => return Ok(self.odd(seen, Oddity::Status(status))),
        }
        let text = answered.text.as_ref().map_err(|what| NotUsed::from((*what).to_owned()));
        match text.and_then(|text| read(&Members::read(text)?)) {
            Ok(found) => Ok(Some(found)),
            Err(NotUsed::Ends(error)) => Err(error),
            Err(NotUsed::Oddity(oddity)) => Ok(self.odd(seen, oddity)),
        }
    }

    fn odd<D>(&mut self, seen: &FetchedDocument, oddity: Oddity) -> Option<D> {
        self.oddities.push((seen.url.clone(), oddity));
        None
    }

    /// The error of a search that found nothing: the most telling place, or that every place said so.
    pub(crate) fn nowhere(self, whose: &str) -> Error {
        let document = self.document;
        let telling = self.oddities.into_iter().filter(|(_, oddity)| oddity.rank().is_some());
        match (telling.min_by_key(|(_, oddity)| oddity.rank()), document) {
            (Some((url, why)), _) => Error::Unusable { document, place: shown(&url), why },
            (None, Document::Server) => Error::NoServerMetadata { issuer: whose.to_owned() },
            (None, _) => Error::NoResourceMetadata { server: whose.to_owned() },
        }
    }
}

/// What the own place of a resource says of it, if it names exactly this one. `None` if it does not confirm it.
pub(crate) fn confirms(
    seen: &FetchedDocument,
    place: &ServerUrl,
    resource: &Resource,
    server: &ServerUrl,
) -> Result<Option<ResourceMetadata>, Error> {
    let found = Search::of(Document::Resource).weigh(seen, |members| {
        let own = ResourceDocument::read(members)?;
        if !own.is_of(resource) {
            return Ok(None);
        }
        own.checked(place, server).map(Some).map_err(NotUsed::Ends)
    })?;
    Ok(found.flatten())
}

/// Does this say that nothing usable is at the place? Every other failure ends the search.
fn is_not_there(error: &outbound::Error) -> bool {
    use outbound::Error as E;
    matches!(
        error,
        E::NotAUrl
            | E::Insecure { .. }
            | E::InsecureLoopback { .. }
            | E::Forbidden { .. }
            | E::NotAllowed { .. }
            | E::Redirect { .. }
            | E::TooLarge { .. }
    )
}

/// A place for people: without its query.
fn shown(url: &str) -> String {
    crate::oauth::quoted_words(url.split('?').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(place: &str, answer: Result<(u16, &str), outbound::Error>) -> FetchedDocument {
        let answered = |(status, text): (u16, &str)| Answered {
            status,
            date: None,
            retry_after: None,
            text: if text.starts_with('<') { Err("the answer is not application/json") } else { Ok(text.to_owned()) },
        };
        FetchedDocument { url: format!("https://h.example/{place}"), answer: answer.map(answered) }
    }

    fn search(answers: &[FetchedDocument]) -> Result<String, Error> {
        let mut search = Search::of(Document::Resource);
        for one in answers {
            let read = |members: &Members<'_>| Ok(members.needed_text("resource")?);
            if let Some(found) = search.weigh(one, read)? {
                return Ok(found);
            }
        }
        Err(search.nowhere("https://h.example/mcp"))
    }

    fn redirect() -> outbound::Error {
        outbound::Error::Redirect { host: "h.example".to_owned(), status: 302 }
    }

    #[test]
    fn whatever_is_not_the_document_sends_the_search_to_the_next_place() {
        let good = || seen("last", Ok((200, r#"{"resource":"x"}"#)));
        let insecure = outbound::Error::Insecure { host: "h.example".to_owned() };
        let large = outbound::Error::TooLarge { host: "h.example".to_owned() };
        for odd in [
            Ok((404, "")),
            Ok((410, "")),
            Ok((401, "")),
            Ok((403, "{}")),
            Ok((405, "")),
            Ok((204, "")),
            Ok((200, "<html>")),
            Ok((200, "[]")),
            Ok((200, "{}")),
            Ok((200, r#"{"resource":7}"#)),
            Err(redirect()),
            Err(insecure),
            Err(large),
        ] {
            let said = format!("{odd:?}");
            assert_eq!(search(&[seen("first", odd), good()]).as_deref(), Ok("x"), "{said}");
        }
    }

    #[test]
    fn trouble_that_passes_ends_the_search() {
        let good = || seen("last", Ok((200, r#"{"resource":"x"}"#)));
        let broken = outbound::Error::Broken { host: "h.example".to_owned(), what: "…".to_owned() };
        for trouble in [Ok((500, "")), Ok((503, "<html>")), Ok((429, "")), Err(broken)] {
            let said = format!("{trouble:?}");
            let error = search(&[seen("first", trouble), good()]).expect_err(&said);
            assert!(error.is_temporary(), "{said}: {error}");
        }
    }

    #[test]
    fn nothing_is_published_only_if_every_place_says_so() {
        let place = |name: &str, status| seen(name, Ok((status, "")));
        let nowhere = search(&[place("a", 404), place("b", 410)]).expect_err("nowhere");
        assert!(matches!(nowhere, Error::NoResourceMetadata { .. }), "{nowhere}");
        for (answers, told) in [
            (vec![place("a", 404), place("b", 401)], "https://h.example/b: it answers status 401"),
            (
                vec![place("a", 401), seen("b", Err(redirect()))],
                "https://h.example/b: h.example answers with a redirect",
            ),
            (
                vec![seen("a", Ok((200, "<html>"))), seen("b?key=secret", Ok((200, "{}")))],
                "https://h.example/a: the answer is not",
            ),
            (vec![place("a", 404), seen("b?key=secret", Ok((200, "{}")))], "https://h.example/b: it has no `resource`"),
        ] {
            let error = search(&answers).expect_err("nowhere").to_string();
            assert!(error.starts_with(&format!("the resource metadata at {told}")), "{error}");
        }
    }
}
