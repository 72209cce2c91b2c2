//! `longhaul keys` and `longhaul projects`: on the database itself, so that the first key needs none, and beside a server that runs.

use crate::{
    args::{Form, KeysCommand, ProjectsCommand, RateArgs, RegistryArgs},
    client,
    output::{self, ERROR, Failure, NOT_FOUND, Outcome, USAGE},
};
use serde_json::{Value, json};
use shared::{
    clock::UnixMs,
    config::{Database, Settings},
    identity::{ApiKey, Quotas, Scopes},
    process,
    store::{self, Grant, Key, NewKey, PostgresStore, Project, Registry, SqliteStore, Store, Whose},
    task::{KeyId, ProjectId},
};
use std::{process::ExitCode, sync::Arc};

/// How the audit log names whoever runs these commands.
const ACTOR: &str = "command line";
/// Rows of `keys list`.
const LIST_MAX: u32 = 1_000;

type Whom = Arc<dyn Registry>;

/// Runs one of `longhaul keys`.
pub(crate) fn keys(args: &RegistryArgs, command: &KeysCommand) -> ExitCode {
    let makes = matches!(command, KeysCommand::Create { .. } | KeysCommand::Rotate { .. });
    if makes && args.output == Form::Id {
        return client::status(Err(Failure::new(USAGE, "-o id would lose the new key: use -o json")));
    }
    run(args, async |registry, form| match command {
        KeysCommand::Create { project, scopes, name, expires_in, limits } => {
            let scopes: Scopes = scopes.parse().map_err(|error| Failure::new(USAGE, format!("{error}")))?;
            if scopes.is_empty() || !Key::is_name(name) {
                let what = "expected at least one scope, and a name of at most 128 characters";
                return Err(Failure::new(USAGE, what));
            }
            let project = named(&registry, project).await?;
            let grant =
                Grant { project, name: name.clone(), scopes, lives: *expires_in, quotas: quotas(limits) };
            let (key, new) = NewKey::generate();
            let made = registry.create_key(ACTOR, &new, &grant).await.map_err(|error| broken(&error))?;
            show(&made.ok_or_else(|| Failure::new(NOT_FOUND, "no such project"))?, &key, form)
        }
        KeysCommand::List => {
            let page = registry.keys(None, LIST_MAX).await.map_err(|error| broken(&error))?;
            if page.has_more {
                output::say(&format!("only the newest {LIST_MAX} are shown"));
            }
            let now = registry.now().await.map_err(|error| broken(&error))?;
            list(&page.items, now, form)
        }
        KeysCommand::Rotate { id, overlap } => {
            let (key, new) = NewKey::generate();
            let made = registry.rotate_key(ACTOR, self::id(id)?, &new, *overlap).await;
            show(&made.map_err(|error| broken(&error))?.ok_or_else(|| unknown(id))?, &key, form)
        }
        KeysCommand::Limit { id, limits } => {
            limit(&registry, Whose::Key(self::id(id)?), quotas(limits), unknown(id), (form, id)).await
        }
        KeysCommand::Revoke { id } => {
            let revoked = registry.revoke_key(ACTOR, self::id(id)?).await.map_err(|error| broken(&error))?;
            let revoked = revoked.ok_or_else(|| unknown(id))?;
            match form {
                Form::Json => output::raw(view(&revoked, None).to_string().as_bytes()),
                Form::Id => output::raw(revoked.id.to_string().as_bytes()),
                Form::Table => output::raw(format!("{} is refused within 5 s", revoked.id).as_bytes()),
            }
        }
    })
}

/// Runs one of `longhaul projects`.
pub(crate) fn projects(args: &RegistryArgs, command: &ProjectsCommand) -> ExitCode {
    run(args, async |registry, form| match command {
        ProjectsCommand::Create { name } => {
            let known = registry.project(name).await.map_err(|error| broken(&error))?;
            let project = match known {
                Some(known) => {
                    output::say(&format!("there is a project {name} already"));
                    known
                }
                None => create(&registry, name).await?,
            };
            match form {
                Form::Json => output::raw(project_view(&project).to_string().as_bytes()),
                _ => list_projects(&[project], form),
            }
        }
        ProjectsCommand::List => {
            list_projects(&registry.projects().await.map_err(|error| broken(&error))?, form)
        }
        ProjectsCommand::Limit { project, limits, queued_tasks, concurrent_tasks } => {
            let quotas =
                Quotas { queued_tasks: *queued_tasks, concurrent_tasks: *concurrent_tasks, ..quotas(limits) };
            let missing = || Failure::new(NOT_FOUND, format!("there is no project {project}"));
            let id = match project.parse() {
                Ok(id) => id,
                Err(_) => {
                    let found = registry.project(project).await.map_err(|error| broken(&error))?;
                    found.ok_or_else(missing)?.id
                }
            };
            limit(&registry, Whose::Project(id), quotas, missing(), (form, &id.to_string())).await
        }
    })
}

fn list_projects(projects: &[Project], form: Form) -> Outcome {
    if form == Form::Json {
        let views: Vec<Value> = projects.iter().map(project_view).collect();
        return output::raw(Value::from(views).to_string().as_bytes());
    }
    let row = |project: &Project| vec![project.id.to_string(), project.name.clone(), said(&project.quotas)];
    output::listed(&["ID", "NAME", "LIMITS"], projects.iter().map(row).collect(), form)
}

fn project_view(project: &Project) -> Value {
    json!({"id": project.id, "name": project.name, "limits": project.quotas})
}

fn quotas(limits: &RateArgs) -> Quotas {
    let RateArgs { requests_per_minute, tokens_per_minute } = *limits;
    Quotas { requests_per_minute, tokens_per_minute, ..Quotas::default() }
}

/// Limits for a person.
fn said(quotas: &Quotas) -> String {
    let said = quotas.named().into_iter().filter_map(|(name, limit)| Some(format!("{name}={}", limit?)));
    said.collect::<Vec<_>>().join(" ")
}

async fn limit(
    registry: &Whom,
    whose: Whose,
    quotas: Quotas,
    missing: Failure,
    shown: (Form, &str),
) -> Outcome {
    if !registry.limit(ACTOR, whose, &quotas).await.map_err(|error| broken(&error))? {
        return Err(missing);
    }
    match shown.0 {
        Form::Json => output::raw(json!(quotas).to_string().as_bytes()),
        Form::Id => output::raw(shown.1.as_bytes()),
        Form::Table => {
            output::raw(format!("within 5 s: {}", said(&quotas)).trim_end_matches(": ").as_bytes())
        }
    }
}

fn run(args: &RegistryArgs, command: impl AsyncFnOnce(Whom, Form) -> Outcome) -> ExitCode {
    process::run_to_status(crate::QUIET_LOG, async |_| {
        let outcome = match open(args).await {
            Ok(registry) => command(registry, args.output).await,
            Err(error) => Err(Failure::new(ERROR, format!("{error:#}"))),
        };
        client::status(outcome)
    })
}

/// Opens the registry. A data folder that is not there is not made: its keys would open nothing.
async fn open(args: &RegistryArgs) -> anyhow::Result<Whom> {
    Ok(match Settings::gather(&args.flags())?.database()? {
        Database::Postgres(url) => {
            let store = PostgresStore::open(url.expose(), 2).await?;
            store.check().await?;
            Arc::new(store)
        }
        Database::Folder(folder) => {
            let file = folder.join("longhaul.db");
            anyhow::ensure!(
                file.exists(),
                "there is no database in {}: name the data folder of `longhaul serve` with --data-dir, or make one with `longhaul \
                 migrate`",
                folder.display()
            );
            match SqliteStore::open(&file).await {
                Ok(store) => {
                    store.migrate().await?;
                    Arc::new(store)
                }
                // A server has the folder, and has migrated it.
                Err(store::Error::Unavailable(_)) => {
                    let store = SqliteStore::beside(&file).await?;
                    store.check().await?;
                    Arc::new(store)
                }
                Err(error) => return Err(error.into()),
            }
        }
    })
}

/// The project of that name or id, made if it is a new name.
async fn named(registry: &Whom, name: &str) -> Outcome<ProjectId> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    if let Some(project) = registry.project(name).await.map_err(|error| broken(&error))? {
        return Ok(project.id);
    }
    let project = create(registry, name).await?;
    output::say(&format!("made the project {name}"));
    Ok(project.id)
}

async fn create(registry: &Whom, name: &str) -> Outcome<Project> {
    if !Project::is_name(name) {
        let form = "1 to 64 of a-z, 0-9, _, - and ., starting with a letter or digit";
        return Err(Failure::new(USAGE, format!("{name:?} is no name of a project: expected {form}")));
    }
    let made =
        registry.create_project(ACTOR, ProjectId::new(), name).await.map_err(|error| broken(&error))?;
    made.ok_or_else(|| Failure::new(ERROR, format!("there is a project {name} already")))
}

fn id(text: &str) -> Outcome<KeyId> {
    text.parse().map_err(|_| unknown(text))
}

fn unknown(id: &str) -> Failure {
    Failure::new(NOT_FOUND, format!("no live key has the id {id}: see `longhaul keys list`"))
}

fn broken(error: &shared::store::Error) -> Failure {
    let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
    Failure::new(ERROR, format!("{error}{cause}"))
}

fn view(row: &Key, key: Option<&ApiKey>) -> Value {
    let mut view = json!({
        "id": row.id, "project": row.project_name, "project_id": row.project, "name": row.name, "hint": row.hint,
        "scopes": row.scopes, "created_at": row.created_at, "expires_at": row.expires_at, "revoked_at": row.revoked_at,
        "used_at": row.used_at, "limits": row.quotas,
    });
    if let Some(key) = key {
        view["key"] = key.expose().into();
    }
    view
}

/// Shows a new key, for the only time.
fn show(row: &Key, key: &ApiKey, form: Form) -> Outcome {
    match form {
        Form::Json => output::raw(view(row, Some(key)).to_string().as_bytes()),
        Form::Id => output::raw(row.id.to_string().as_bytes()),
        Form::Table => {
            output::say(&format!(
                "{} of project {}, for {}. Keep it: it is not shown again.",
                row.id, row.project_name, row.scopes
            ));
            output::raw(key.expose().as_bytes())
        }
    }
}

fn list(keys: &[Key], now: UnixMs, form: Form) -> Outcome {
    if form == Form::Json {
        let views: Vec<Value> = keys.iter().map(|key| view(key, None)).collect();
        return output::raw(Value::from(views).to_string().as_bytes());
    }
    let row = |key: &Key| {
        let status = match (key.revoked_at, key.expires_at) {
            (Some(_), _) => "revoked",
            (None, Some(end)) if end <= now => "expired",
            _ => "live",
        };
        let used = key.used_at.map_or_else(|| "never".to_owned(), |at| output::age(at.0 as f64 / 1_000.0));
        let (scopes, hint) = (key.scopes.to_string(), format!("{}…", key.hint));
        vec![
            key.id.to_string(),
            hint,
            key.project_name.clone(),
            key.name.clone(),
            scopes,
            status.to_owned(),
            used,
        ]
    };
    let head = ["ID", "KEY", "PROJECT", "NAME", "SCOPES", "STATUS", "USED"];
    output::listed(&head, keys.iter().map(row).collect(), form)
}
