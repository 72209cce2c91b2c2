//! What the store knows of upstreams: their models, their pauses; and which tasks may be claimed at the moment.

use crate::task::ProjectId;
use std::{sync::Arc, time::Duration};

/// Which models an upstream lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamModels {
    /// The upstream's configured name.
    pub upstream: String,
    /// Its models; `None`: the list is unavailable.
    pub models: Option<Vec<String>>,
}

/// What a pause is of: an upstream, or one of its models.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The upstream's configured name.
    pub upstream: String,
    /// The model; `None`: all of them.
    pub model: Option<String>,
}

impl Scope {
    /// All models of an upstream.
    #[must_use]
    pub fn upstream(name: &str) -> Self {
        Self { upstream: name.to_owned(), model: None }
    }

    /// One model of an upstream. A model without a name cannot be told from the others.
    #[must_use]
    pub fn model(upstream: &str, model: &str) -> Self {
        Self::from_columns(upstream.to_owned(), model.to_owned())
    }

    pub(super) fn from_columns(upstream: String, model: String) -> Self {
        Self { upstream, model: Some(model).filter(|model| !model.is_empty()) }
    }

    pub(super) fn model_column(&self) -> &str {
        self.model.as_deref().unwrap_or_default()
    }
}

/// Why something is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It asked for fewer requests: everybody may call after the pause. After any other cause one caller at a time tries it,
    /// until one succeeds.
    Throttled,
    /// Its calls fail.
    Failing,
    /// It says that it does not serve at the moment, as while it loads a model.
    Unavailable,
    /// It refuses the operator's key.
    Credentials,
    /// There is no connection to it.
    Unreachable,
}

impl Cause {
    const ALL: [Self; 5] =
        [Self::Throttled, Self::Failing, Self::Unavailable, Self::Credentials, Self::Unreachable];

    /// Its name in rows and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Failing => "failing",
            Self::Unavailable => "unavailable",
            Self::Credentials => "credentials",
            Self::Unreachable => "unreachable",
        }
    }

    /// Whether it has to be tried before everybody may call again.
    #[must_use]
    pub fn is_failing(self) -> bool {
        self != Self::Throttled
    }

    /// A cause that only a later version knows wants a trial, as all but one do.
    pub(super) fn read(name: &str) -> Self {
        Self::ALL.into_iter().find(|cause| cause.as_str() == name).unwrap_or(Self::Failing)
    }
}

/// Something that is left alone for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// What is.
    pub scope: Scope,
    /// Until it may be called, zero once that moment has passed.
    pub left: Duration,
    /// Why.
    pub cause: Cause,
}

/// Which tasks are claimed and rung for at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Those that have an upstream.
    pub open: Arc<Open>,
    /// Those that are left to [`super::Store::claim_capped`].
    pub capped: Capped,
}

/// Projects of which only so many tasks may run at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capped {
    /// Those with a cap of their own.
    pub own: Arc<[Cap]>,
    /// The cap of all others, if there is one.
    pub usual: Option<u32>,
}

/// How many tasks of a project may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// The project.
    pub project: ProjectId,
    /// So many of its tasks.
    pub tasks: u32,
}

/// Which tasks have an upstream that may be called. A task's key is `endpoint model`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Open {
    /// All of them: nothing is paused.
    #[default]
    All,
    /// Those whose key begins with an odd number of `prefixes`: each turns round what the shorter ones say. For the keys in
    /// `except` it is once more the other way round.
    Only {
        /// An endpoint with a space stands for all of its models, `endpoint openai/` for those that begin so.
        prefixes: Vec<String>,
        /// Whole keys.
        except: Vec<String>,
    },
}

impl Open {
    /// Whether no task at all has one.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Only { prefixes, except } if prefixes.is_empty() && except.is_empty())
    }
}

impl Served {
    /// The two lists of [`Served::open`] as columns of a statement; `None` for [`Open::All`].
    pub(super) fn lists(&self) -> (Option<&[String]>, Option<&[String]>) {
        match &*self.open {
            Open::All => (None, None),
            Open::Only { prefixes, except } => (Some(prefixes), Some(except)),
        }
    }
}

impl Capped {
    /// Whether no project has a cap.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        self.own.is_empty() && self.usual.is_none()
    }

    /// A project's cap.
    #[must_use]
    pub fn of(&self, project: ProjectId) -> Option<u32> {
        let own = self.own.iter().find(|cap| cap.project == project);
        own.map(|cap| cap.tasks).or(self.usual)
    }

    /// Without those that so many slots, and as many again, could not reach: a worker that has just come is not known everywhere yet.
    /// Of no slots at all nothing can be told.
    #[must_use]
    pub fn below(self, slots: u32) -> Self {
        let reached = |tasks: u32| slots == 0 || tasks < slots.saturating_mul(2);
        match self.usual {
            // The wide ones are exceptions from it.
            Some(usual) if reached(usual) => self,
            _ => {
                Self { own: self.own.iter().copied().filter(|cap| reached(cap.tasks)).collect(), usual: None }
            }
        }
    }

    /// The same of these projects alone.
    #[must_use]
    pub fn only(&self, projects: impl Iterator<Item = ProjectId>) -> Self {
        let cap = |project| Some(Cap { project, tasks: self.of(project)? });
        Self { own: projects.filter_map(cap).collect(), usual: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_that_nobody_reaches_is_none() {
        let cap = |tasks| Cap { project: ProjectId::new(), tasks };
        let (narrow, wide) = (cap(15), cap(16));
        let capped = |usual| Capped { own: [narrow, wide].into(), usual };
        assert_eq!(capped(None).below(8), Capped { own: [narrow].into(), usual: None });
        assert_eq!(capped(Some(16)).below(8), Capped { own: [narrow].into(), usual: None });
        assert_eq!(
            capped(Some(15)).below(8),
            capped(Some(15)),
            "a wide one is an exception from the usual one"
        );
        assert_eq!(capped(None).below(0), capped(None), "nobody works yet");
    }

    #[test]
    fn nothing_is_open_if_no_list_names_anything() {
        let only = |prefixes: &[&str], except: &[&str]| {
            let own = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
            Open::Only { prefixes: own(prefixes), except: own(except) }
        };
        assert!(only(&[], &[]).is_nothing());
        assert!(!only(&["/v1 "], &[]).is_nothing() && !only(&[], &["/v1 m"]).is_nothing());
        assert!(!Open::All.is_nothing());
        assert_eq!(Served::default().lists(), (None, None));
        let some = Served { open: Arc::new(only(&["/v1 "], &["/v1 m"])), ..Served::default() };
        assert_eq!(some.lists(), (Some(&["/v1 ".to_owned()][..]), Some(&["/v1 m".to_owned()][..])));
    }

    #[test]
    fn a_project_has_its_own_cap_or_the_usual_one() {
        let own = Cap { project: ProjectId::new(), tasks: 5 };
        let (other, stranger) = (Cap { project: ProjectId::new(), tasks: 6 }, ProjectId::new());
        let capped = |usual| Capped { own: [other, own].into(), usual };
        assert_eq!([own.project, stranger].map(|id| capped(Some(9)).of(id)), [Some(5), Some(9)]);
        assert_eq!([own.project, stranger].map(|id| capped(None).of(id)), [Some(5), None]);
        let few = [own.project, stranger];
        assert_eq!(capped(None).only(few.into_iter()), Capped { own: [own].into(), usual: None });
        let usual = Cap { project: stranger, tasks: 9 };
        assert_eq!(
            capped(Some(9)).only(few.into_iter()),
            Capped { own: [own, usual].into(), usual: None },
            "nobody else is asked about"
        );
        assert!(Capped::default().is_nobody());
        assert!(!capped(None).is_nobody() && !Capped { usual: Some(9), ..Capped::default() }.is_nobody());
    }
}
