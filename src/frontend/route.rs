//! Which method and path lead to which handler. A new path is one row; 404, and 405 with `Allow`, follow from the table.

use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Uri};
use safeconduct_listener::Violation;

use super::answer::{Answer, Dialect, Failure};
use super::api;
use super::behind;
use super::desk::Desk;
use super::funnel::{Asked, Audit, Finished};
use super::gate::{self, Pass};
use super::mcp;
use super::oauth;
use crate::broker::Action;
use crate::caller::Caller;

/// A row.
struct Route {
    /// The methods. With none in the list, any method will do.
    methods: &'static [Method],
    /// The path. One that ends with `/` stands for everything below it.
    path: &'static str,
    /// What the caller must show.
    needs: Needs,
    /// What the audit calls a request that is refused here.
    action: Action,
    /// How its errors are written.
    dialect: Dialect,
    handler: Handler,
}

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// To be known: by the kernel's word, or by the secret of the listener.
    Caller,
    /// The secret of an OAuth client, which its handler looks at.
    ClientSecret,
    /// Nothing.
    Nothing,
}

/// How a route answers.
type Handler = for<'a> fn(Asked<'a>, Incoming) -> Finished<'a>;

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];

/// Answers whoever asks, on every listener: it says nothing but that the process runs.
const LIVENESS: Route = Route {
    methods: GET,
    path: "/healthz",
    needs: Needs::Nothing,
    action: Action::Status,
    dialect: Dialect::Oauth,
    handler: |asked, _| Finished::now(Ok(Answer::alive()), asked),
};

/// The API, on the socket and on loopback. Readiness and metrics name servers, so they need a caller too.
const API: &[Route] = &[
    Route {
        methods: GET,
        path: "/v1/token",
        needs: Needs::Caller,
        action: Action::Token,
        dialect: Dialect::Oauth,
        handler: |asked, _| api::token(asked),
    },
    Route {
        methods: GET,
        path: "/v1/headers",
        needs: Needs::Caller,
        action: Action::Headers,
        dialect: Dialect::Oauth,
        handler: |asked, _| Finished::later(asked.late(), async { (api::headers(&asked).await, asked) }),
    },
    Route {
        methods: POST,
        path: "/v1/reject",
        needs: Needs::Caller,
        action: Action::Reject,
        dialect: Dialect::Oauth,
        handler: |asked, body| Finished::later(asked.late(), async { (api::reject(&asked, body).await, asked) }),
    },
    Route {
        methods: POST,
        path: "/v1/revoke",
        needs: Needs::Caller,
        action: Action::Revoke,
        dialect: Dialect::Oauth,
        handler: |asked, body| Finished::later(asked.late(), async { (api::revoke(&asked, body).await, asked) }),
    },
    Route {
        methods: GET,
        path: "/v1/status",
        needs: Needs::Caller,
        action: Action::Status,
        dialect: Dialect::Oauth,
        handler: |asked, _| Finished::now(api::status(&asked), asked),
    },
    Route {
        methods: POST,
        path: "/v1/reload",
        needs: Needs::Caller,
        action: Action::Reload,
        dialect: Dialect::Oauth,
        handler: |asked, _| Finished::later(asked.late(), async { (api::reload(&asked).await, asked) }),
    },
    Route {
        methods: POST,
        path: "/v1/stop",
        needs: Needs::Caller,
        action: Action::Stop,
        dialect: Dialect::Oauth,
        handler: |asked, _| Finished::now(api::stop(&asked), asked),
    },
    Route {
        methods: &[],
        path: mcp::PATH,
        needs: Needs::Caller,
        action: Action::Call,
        dialect: Dialect::JsonRpc,
        handler: mcp::relay,
    },
    // Whatever the method, it is not there where it is not configured.
    Route {
        methods: &[],
        path: oauth::PATH,
        needs: Needs::ClientSecret,
        action: Action::Token,
        dialect: Dialect::TokenEndpoint,
        handler: |asked, body| Finished::later(asked.late(), async { (oauth::token(&asked, body).await, asked) }),
    },
    LIVENESS,
    Route {
        methods: GET,
        path: "/readyz",
        needs: Needs::Caller,
        action: Action::Ready,
        dialect: Dialect::Oauth,
        handler: |asked, _| Finished::now(api::ready(&asked), asked),
    },
    Route {
        methods: GET,
        path: "/metrics",
        needs: Needs::Caller,
        action: Action::Status,
        dialect: Dialect::Oauth,
        handler: |asked, _| Finished::now(api::metrics(&asked), asked),
    },
];

/// The listener for kubelet and Prometheus.
const HEALTH: &[Route] = &[
    LIVENESS,
    Route {
        methods: GET,
        path: "/readyz",
        needs: Needs::Nothing,
        action: Action::Status,
        dialect: Dialect::Oauth,
        handler: |asked, _| Finished::now(api::ready_counts(&asked), asked),
    },
    Route {
        methods: GET,
        path: "/metrics",
        needs: Needs::Nothing,
        action: Action::Status,
        dialect: Dialect::Oauth,
        handler: |asked, _| Finished::now(api::nameless_metrics(&asked), asked),
    },
];

/// May whoever owns the connecting socket be the caller of this request, on TCP?
pub(super) fn asks_for_owner(head: &Uri, fields: &HeaderMap) -> bool {
    // A credential that is not the listener's secret is a wrong one, whoever owns the socket.
    head.path() == oauth::PATH || (head.path().starts_with(mcp::PATH) && !fields.contains_key(AUTHORIZATION))
}

/// Answers one request.
pub(super) fn answer<'a>(pass: &Pass, desk: Desk<'a>, caller: &'a Caller, request: Request<Incoming>) -> Finished<'a> {
    let (head, body) = request.into_parts();
    let found = admit(pass, caller, &head);
    let (action, dialect) = match &found {
        Ok(route) => (route.action, route.dialect),
        Err(_) if head.uri.path().starts_with(mcp::PATH) => (Action::Gate, Dialect::JsonRpc),
        Err(_) => (Action::Gate, Dialect::Oauth),
    };
    let audit = if matches!(pass, Pass::Anyone) { Audit::Nothing } else { Audit::Refusals };
    let (method, uri, fields) = (head.method, head.uri, head.headers);
    let asked = Asked { desk, caller, method, uri, fields, action, dialect, audit };
    match found {
        Ok(route) if asked.desk.fixed.behind.is_some() && behind::is_asked_for(route.action) => {
            behind::answer(asked, body)
        }
        Ok(route) => (route.handler)(asked, body),
        Err(failure) => Finished::now(Err(failure), asked),
    }
}

/// The route of a request that passes the gate, if its caller shows what the route needs.
fn admit(pass: &Pass, caller: &Caller, head: &Parts) -> Result<&'static Route, Failure> {
    if let Some(violation) = head.extensions.get::<Violation>() {
        return Err(Failure::malformed(*violation));
    }
    gate::admit(pass, &head.uri, &head.headers).map_err(|refusal| {
        let failure = Failure::denied(refusal.words().to_owned()).recorded_as(refusal.code(), refusal.words());
        failure.ends_connection()
    })?;
    let table = if matches!(pass, Pass::Anyone) { HEALTH } else { API };
    let route = find(table, &head.method, head.uri.path())?;
    if route.needs == Needs::Caller && !caller.is_known() {
        // Never 401, which would make a client register and open a browser.
        let failure = Failure::denied("this listener wants its secret as `Authorization: Bearer`".to_owned());
        let failure = failure.hint(pass.hint());
        return Err(failure.recorded_as("no_secret", "the caller did not present this listener's secret"));
    }
    Ok(route)
}

/// An exact path counts before a prefix, and a longer prefix before a shorter one.
fn find<'a>(table: &'a [Route], method: &Method, path: &str) -> Result<&'a Route, Failure> {
    // HEAD is answered as GET is (RFC 9110 section 9.3.2). The HTTP library leaves the body out.
    let wanted = if *method == Method::HEAD { &Method::GET } else { method };
    let takes = |route: &&Route| route.methods.is_empty() || route.methods.contains(wanted);
    let exact = |route: &&Route| route.path == path;
    if let Some(route) = table.iter().filter(exact).find(takes) {
        return Ok(route);
    }
    let leads = |route: &&Route| exact(route) || (route.path.ends_with('/') && path.starts_with(route.path));
    let longest = table.iter().filter(leads).map(|route| route.path).max_by_key(|path| path.len());
    let longest = longest.ok_or_else(Failure::not_found)?;
    let here = table.iter().filter(|route| route.path == longest);
    here.clone().find(takes).ok_or_else(|| {
        let methods = here.flat_map(|route| route.methods);
        let allow = methods.map(|method| if *method == Method::GET { "GET, HEAD" } else { method.as_str() });
        Failure::method_not_allowed(allow.collect::<Vec<_>>().join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: &[Method] = &[];
    const DELETE: &[Method] = &[Method::DELETE];

    const fn row(methods: &'static [Method], path: &'static str) -> Route {
        let handler: Handler = |asked, _| Finished::now(Ok(Answer::alive()), asked);
        Route { methods, path, needs: Needs::Nothing, action: Action::Status, dialect: Dialect::Oauth, handler }
    }

    const TABLE: &[Route] = &[
        row(GET, "/v1/guests"),
        row(POST, "/v1/guests"),
        row(DELETE, "/v1/guests/"),
        row(ANY, "/mcp/"),
        row(GET, "/mcp/inside/"),
    ];

    fn found(method: Method, path: &str) -> Result<&'static str, (String, Option<String>)> {
        let told = |failure: Failure| {
            let code = failure.code().to_owned();
            let response = failure.into_response(Dialect::Oauth, HeaderMap::new(), false);
            let allow = response.headers().get("allow").map(|value| value.to_str().unwrap().to_owned());
            (code, allow)
        };
        find(TABLE, &method, path).map(|route| route.path).map_err(told)
    }

    #[test]
    fn a_path_that_ends_with_a_slash_stands_for_what_is_below_it() {
        assert_eq!(found(Method::GET, "/mcp/demo"), Ok("/mcp/"));
        assert_eq!(found(Method::DELETE, "/mcp/demo/more"), Ok("/mcp/"));
        assert_eq!(found(Method::DELETE, "/v1/guests/ci"), Ok("/v1/guests/"));
        assert_eq!(found(Method::GET, "/mcp/inside/x"), Ok("/mcp/inside/"), "the longest prefix counts");
        for path in ["/mcp", "/v1/guestsx", "/", "", "/v1"] {
            assert_eq!(found(Method::GET, path), Err(("not_found".to_owned(), None)), "{path}");
        }
    }

    #[test]
    fn a_wrong_method_is_told_every_right_one() {
        let told = |allow: &str| Err(("method_not_allowed".to_owned(), Some(allow.to_owned())));
        assert_eq!(found(Method::PUT, "/v1/guests"), told("GET, HEAD, POST"));
        assert_eq!(found(Method::GET, "/v1/guests/ci"), told("DELETE"));
        assert_eq!(found(Method::HEAD, "/v1/guests/ci"), told("DELETE"));
        assert_eq!(found(Method::POST, "/v1/guests"), Ok("/v1/guests"));
    }

    #[test]
    fn no_row_is_hidden_by_another() {
        for table in [API, HEALTH] {
            for row in table {
                let head = row.methods.contains(&Method::GET).then_some(&Method::HEAD);
                for method in row.methods.iter().chain(head) {
                    assert!(find(table, method, row.path).is_ok_and(|found| std::ptr::eq(found, row)), "{}", row.path);
                }
            }
        }
    }

    #[test]
    fn only_that_we_live_is_told_to_whoever_asks() {
        let open: Vec<&str> = API.iter().filter(|row| row.needs == Needs::Nothing).map(|row| row.path).collect();
        assert_eq!(open, ["/healthz"]);
    }
}
