//! Routes: what a request to a service does, to what, and for whom a token that permits it has to be.
//!
//! They lie beside the policies as `routes.toml`, so that a bundle says in one version what is asked and what is answered. They
//! are looked up by the normal form of a request ([`NormalRequest`]); what is not declared is refused.

mod request;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

pub use request::{Method, NormalRequest, RequestError};

use self::request::{authority, is_plain};
use self::table::{Segment, Table};
use super::error::BundleError;
use super::question::{Entity, Properties, Question, QuestionError};
use super::schema::JoinedSchema;
use super::slice::{Environment, Slice};
use crate::token::Audience;

/// `routes.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    route: Vec<Declared>,
}

/// One `[[route]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    method: String,
    host: String,
    path: String,
    action: String,
    resource: DeclaredResource,
    audience: String,
    #[serde(default)]
    one_time: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredResource {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

/// Why a route is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No method.
    #[error("its method is a word of 1 to {} letters in upper case", Method::MAX)]
    Method,
    /// No host.
    #[error("its host is a name or an address in lower case, with a port where that is not the scheme's")]
    Host,
    /// No path of segments.
    #[error(
        "its path begins with `/` and has segments of unreserved characters, `{{name}}` for one segment, or at its end \
         `{{*name}}` for the rest; no `.`, `..`, `//`, `;`, `%`"
    )]
    Path,
    /// More is to be filled in than a path has.
    #[error("its path has more than {} parameters", Route::MAX_PARAMETERS)]
    TooManyParameters,
    /// Two parameters have one name.
    #[error("its path names a parameter twice")]
    ParameterTwice,
    /// The id of the resource is no text with parameters.
    #[error(
        "its resource's id is a text with `{{name}}` for parameters of its path, each of which is one of them"
    )]
    ResourceId,
    /// The action is none of the schema's.
    #[error("the schema has no action `{action}`")]
    Action {
        /// Which.
        action: String,
    },
    /// The schema's action is not for such a resource.
    #[error("the schema has no action `{action}` by a node on a resource of type `{resource}`")]
    Resource {
        /// Which action.
        action: String,
        /// Which type.
        resource: String,
    },
    /// No audience.
    #[error("its audience is no audience of a token")]
    Audience,
    /// Another route is for the same requests.
    #[error("route {other} is for requests of the same paths")]
    Same {
        /// Which, from 1.
        other: usize,
    },
}

impl RouteError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Method => "route_method",
            Self::Host => "route_host",
            Self::Path => "route_path",
            Self::TooManyParameters => "route_parameters_too_many",
            Self::ParameterTwice => "route_parameter_twice",
            Self::ResourceId => "route_resource_id",
            Self::Action { .. } => "route_action_undeclared",
            Self::Resource { .. } => "route_resource_unfit",
            Self::Audience => "route_audience",
            Self::Same { .. } => "route_twice",
        }
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    action: String,
    resource_type: String,
    resource_id: Vec<Piece>,
    audience: Audience,
    one_time: bool,
}

/// A piece of the id of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The segment of the path at this place.
    One(usize),
    /// That one, and all that follow.
    Rest(usize),
}

impl Route {
    /// Parameters of a path.
    pub const MAX_PARAMETERS: usize = 8;
    /// Bytes of a path.
    pub const MAX_PATH: usize = 512;

    /// The action.
    #[must_use]
    pub fn action(&self) -> &str {
        &self.action
    }

    /// For whom a token has to be, and who enforces this.
    #[must_use]
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Whether a token is demanded that is good for one use.
    #[must_use]
    pub fn one_time(&self) -> bool {
        self.one_time
    }
}

/// All routes of a bundle. Only the compiler of bundles makes it.
#[derive(Default)]
pub struct Routes {
    routes: Vec<Route>,
    /// By method and host.
    tables: BTreeMap<(Method, String), Table>,
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("routes", &self.routes.len()).finish_non_exhaustive()
    }
}

/// What a request does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched<'a> {
    route: &'a Route,
    resource_id: String,
}

impl Matched<'_> {
    /// The route that it takes.
    #[must_use]
    pub fn route(&self) -> &Route {
        self.route
    }

    /// Type and id of what it is done to.
    #[must_use]
    pub fn resource(&self) -> (&str, &str) {
        (&self.route.resource_type, &self.resource_id)
    }

    /// May a node do this?
    pub fn question(&self, node: &str) -> Result<Question, QuestionError> {
        let entity = |kind: &str, id: &str| Entity {
            kind: kind.to_owned(),
            id: id.to_owned(),
            properties: Properties::new(),
        };
        let action =
            super::question::Action { name: self.route.action.clone(), properties: Properties::new() };
        let resource = entity(&self.route.resource_type, &self.resource_id);
        Question::of(entity("node", node), action, resource, Properties::new())
    }
}

impl Routes {
    /// Routes of a bundle.
    pub const MAX: usize = 1_000;

    /// Reads `routes.toml`.
    ///
    /// Established when this returns: there are at most [`Self::MAX`] · each has the form of one · each action is one that
    /// the schema lets a node do to resources of the route's type · no two are for the same requests, so that of those that
    /// fit a request one is the most specific.
    pub(super) fn read(
        text: Option<&str>,
        schema: &JoinedSchema,
        environments: &HashMap<Environment, Arc<Slice>>,
    ) -> Result<Self, BundleError> {
        let file: File = match text {
            None => return Ok(Self::default()),
            Some(text) => toml::from_str(text)
                .map_err(|error| BundleError::RoutesUnparsable { detail: error.to_string() })?,
        };
        if file.route.len() > Self::MAX {
            return Err(BundleError::TooManyRoutes { count: file.route.len() });
        }
        let mut routes = Self::default();
        for (number, declared) in (1..).zip(file.route) {
            let refused = |error| BundleError::Route { number, error };
            routes.add(declared, schema, environments).map_err(refused)?;
        }
        Ok(routes)
    }

    fn add(
        &mut self,
        declared: Declared,
        schema: &JoinedSchema,
        environments: &HashMap<Environment, Arc<Slice>>,
    ) -> Result<(), RouteError> {
        let method = Method::parse(&declared.method).ok_or(RouteError::Method)?;
        // By either scheme it has to be the form in which requests have it.
        let in_form = |scheme| authority(scheme, &declared.host).is_ok_and(|normal| normal == declared.host);
        if !in_form("https") || !in_form("http") {
            return Err(RouteError::Host);
        }
        let (segments, names) = segments(&declared.path)?;
        let resource_id = pieces(&declared.resource.id, &segments, &names).ok_or(RouteError::ResourceId)?;
        let action = schema.actions.get(&declared.action);
        let action = action.ok_or_else(|| RouteError::Action { action: declared.action.clone() })?;
        let index = |kind: &str| schema.types.get(kind).map(|(index, _)| *index);
        let fits = index("node").zip(index(&declared.resource.kind)).is_some_and(|(principal, resource)| {
            environments.contains_key(&Environment { principal, action: action.index, resource })
        });
        if !fits {
            let (action, resource) = (declared.action, declared.resource.kind);
            return Err(RouteError::Resource { action, resource });
        }
        let audience = Audience::try_from(declared.audience).map_err(|_| RouteError::Audience)?;
        let table = self.tables.entry((method, declared.host)).or_default();
        let there = table.insert(&segments, self.routes.len());
        there.map_err(|other| RouteError::Same { other: other.saturating_add(1) })?;
        self.routes.push(Route {
            action: declared.action,
            resource_type: declared.resource.kind,
            resource_id,
            audience,
            one_time: declared.one_time,
        });
        Ok(())
    }

    /// The route of a request, the most specific of those that fit: a text goes before a parameter, and that before the rest.
    #[must_use]
    pub fn find(&self, request: &NormalRequest) -> Option<Matched<'_>> {
        let table = self.tables.get(&(request.method().clone(), request.host().to_owned()))?;
        let path: Vec<_> = request.path().split('/').skip(1).collect();
        let route = self.routes.get(table.find(&path)?)?;
        let mut resource_id = String::new();
        for piece in &route.resource_id {
            match piece {
                Piece::Text(text) => resource_id.push_str(text),
                Piece::One(place) => resource_id.push_str(&request::decoded(path.get(*place)?)?),
                Piece::Rest(place) => {
                    resource_id.push_str(&request::decoded(&path.get(*place..)?.join("/"))?)
                }
            }
        }
        Some(Matched { route, resource_id })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

/// The segments of a path, and the name of each that is a parameter.
fn segments(path: &str) -> Result<(Vec<Segment>, Vec<Option<&str>>), RouteError> {
    let text = path.strip_prefix('/').filter(|_| path.len() <= Route::MAX_PATH).ok_or(RouteError::Path)?;
    let (mut segments, mut names) = (Vec::new(), Vec::new());
    let mut parts = text.split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        let Some(inner) = part.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) else {
            let ends = part.is_empty() && last;
            if !ends && (!is_plain(part) || matches!(part, "" | "." | "..")) {
                return Err(RouteError::Path);
            }
            segments.push(Segment::Text(part.to_owned()));
            names.push(None);
            continue;
        };
        let (name, segment) = match inner.strip_prefix('*') {
            Some(name) if last => (name, Segment::Rest),
            Some(_) => return Err(RouteError::Path),
            None => (inner, Segment::One),
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(RouteError::Path);
        }
        if names.contains(&Some(name)) {
            return Err(RouteError::ParameterTwice);
        }
        segments.push(segment);
        names.push(Some(name));
        if names.iter().flatten().count() > Route::MAX_PARAMETERS {
            return Err(RouteError::TooManyParameters);
        }
    }
    Ok((segments, names))
}

/// The id of a resource, with its parameters told apart.
fn pieces(mut text: &str, segments: &[Segment], names: &[Option<&str>]) -> Option<Vec<Piece>> {
    if text.is_empty() || text.len() > Question::MAX_ID {
        return None;
    }
    let mut pieces = Vec::new();
    while let Some((before, rest)) = text.split_once('{') {
        let (name, after) = rest.split_once('}')?;
        let place = names.iter().position(|one| *one == Some(name)).filter(|_| !before.contains('}'))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        pieces.push(match segments.get(place)? {
            Segment::Rest => Piece::Rest(place),
            Segment::One | Segment::Text(_) => Piece::One(place),
        });
        text = after;
    }
    if text.contains('}') {
        return None;
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
    Some(pieces)
}
