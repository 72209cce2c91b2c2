//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use shared::config::{
    Flags,
    args::{ApiArgs, CommonArgs, HealthArgs, WorkerArgs},
};
use simulator::Behaviour;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Inference that takes longer than an HTTP request should: submit a task, have a durable id at once, get the answer later.
#[derive(Parser)]
#[command(name = "longhaul", version, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Serve everything in one process: API, worker and, without an upstream, a simulated model
    Serve(ServeArgs),
    /// Show a task and a batch from end to end on a simulated model, with nothing installed
    Demo(DemoArgs),
    /// Serve the API alone, beside other processes
    Api(ApiCommand),
    /// Run tasks, beside other processes
    Worker(WorkerCommand),
    /// Serve a simulated model that speaks OpenAI's HTTP
    Sim(SimArgs),
    /// Bring the database's schema up to date
    Migrate(CommonArgs),
    /// Make, list, rotate and revoke API keys, on the database itself
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
        #[command(flatten)]
        registry: RegistryArgs,
    },
    /// Make and list projects, on the database itself
    Projects {
        #[command(subcommand)]
        command: ProjectsCommand,
        #[command(flatten)]
        registry: RegistryArgs,
    },
    /// Copy the data of `longhaul serve` into one file, while it runs or not
    Backup(BackupArgs),
    /// The effective configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Submit a prompt and stream the answer
    Run(RunArgs),
    /// Submit a task
    Submit(SubmitArgs),
    /// See and steer tasks
    Tasks {
        #[command(subcommand)]
        command: TasksCommand,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// See and steer batches
    Batches {
        #[command(subcommand)]
        command: BatchesCommand,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Ask a server whether it is ready: status 0 if it is
    Health(ClientArgs),
    /// Print the API's OpenAPI document
    Openapi,
}

#[derive(ClapArgs)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten, next_help_heading = "Simulated model")]
    pub(crate) behaviour: Behaviour,
}

impl ServeArgs {
    pub(crate) fn flags(&self) -> Flags {
        self.worker.on(self.api.on(self.common.flags()))
    }
}

#[derive(ClapArgs)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    /// End when the tour is over: status 0 if everything completed. So it is without a terminal, too
    #[arg(long)]
    pub(crate) exit: bool,
    /// Go on serving after the tour, without a terminal too
    #[arg(long, conflicts_with = "exit")]
    pub(crate) keep: bool,
    /// Kill the process that runs the tasks, start another one, and show what became of them
    #[arg(long, conflicts_with = "keep")]
    pub(crate) chaos: bool,
}

#[derive(ClapArgs)]
pub(crate) struct ApiCommand {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

#[derive(ClapArgs)]
pub(crate) struct WorkerCommand {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) worker: WorkerArgs,
    #[command(flatten)]
    pub(crate) health: HealthArgs,
}

#[derive(ClapArgs)]
pub(crate) struct SimArgs {
    /// Address of the model
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) behaviour: Behaviour,
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting as TOML, secrets masked, with the origin of what is set
    Show {
        /// Name the origin of every setting, the defaults included
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Name everything that is wrong with the settings: status 0 if nothing is
    Check(CommonArgs),
}

#[derive(ClapArgs)]
pub(crate) struct BackupArgs {
    /// The file to make: it must not be there yet
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(ClapArgs, Clone)]
pub(crate) struct RegistryArgs {
    /// Configuration file [env: LONGHAUL_CONFIG] [default: longhaul.toml, if there is one]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Data folder of `longhaul serve` [default: longhaul-data]
    #[arg(long, value_name = "FOLDER", global = true)]
    data_dir: Option<String>,
    /// Postgres [env: DATABASE_URL]
    #[arg(long, value_name = "URL", global = true)]
    database_url: Option<String>,
    /// How to print: for a person, as JSON, or ids only
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t, global = true)]
    pub(crate) output: Form,
}

impl RegistryArgs {
    pub(crate) fn flags(&self) -> Flags {
        // A folder that is named is meant, whatever URLs the environment has.
        let embedded = self.data_dir.is_some() && self.database_url.is_none();
        Flags { file: self.config.clone(), embedded, ..Flags::default() }
            .with("data_dir", "--data-dir", self.data_dir.clone())
            .with("database.url", "--database-url", self.database_url.clone())
    }
}

#[derive(Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key; prints it for the only time
    Create {
        /// Its project, by name or id; a new name makes a new project
        #[arg(short, long)]
        project: String,
        /// What it may do, with commas: submit, read, batch, webhooks, admin
        #[arg(short, long)]
        scopes: String,
        /// What people call it
        #[arg(short, long, default_value = "")]
        name: String,
        /// Ends it by itself after a time such as 30d
        #[arg(long, value_name = "TIME", value_parser = time)]
        expires_in: Option<Duration>,
        #[command(flatten)]
        limits: RateArgs,
    },
    /// Print keys, newest first, those that have ended too
    List,
    /// Make a key with the same rights; the old one ends after a while
    Rotate {
        id: String,
        /// How long the old one still works
        #[arg(long, value_name = "TIME", value_parser = time, default_value = "24h")]
        overlap: Duration,
    },
    /// Set all limits of a key; those not named are as for all keys
    Limit {
        id: String,
        #[command(flatten)]
        limits: RateArgs,
    },
    /// End a key: refused everywhere within 5 s
    Revoke { id: String },
}

#[derive(ClapArgs, Clone, Copy)]
pub(crate) struct RateArgs {
    /// Requests in any minute
    #[arg(long, value_name = "N", value_parser = limit())]
    pub(crate) requests_per_minute: Option<u32>,
    /// Tokens, in and out, in any minute
    #[arg(long, value_name = "N", value_parser = limit())]
    pub(crate) tokens_per_minute: Option<u32>,
}

fn limit() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(shared::identity::Quotas::MAX))
}

#[derive(Subcommand)]
pub(crate) enum ProjectsCommand {
    /// Make a project; one that is there already is printed
    Create { name: String },
    /// Print projects, by name
    List,
    /// Set all limits of a project; those not named are as for all projects
    Limit {
        /// Its name or id
        project: String,
        #[command(flatten)]
        limits: RateArgs,
        /// Tasks that may wait for a start
        #[arg(long, value_name = "N", value_parser = limit())]
        queued_tasks: Option<u32>,
        /// Tasks that may run at once
        #[arg(long, value_name = "N", value_parser = limit())]
        concurrent_tasks: Option<u32>,
    },
}

#[derive(ClapArgs, Clone)]
pub(crate) struct ClientArgs {
    /// The server
    #[arg(
        long,
        value_name = "URL",
        env = "LONGHAUL_SERVER",
        default_value = "http://127.0.0.1:8080",
        global = true
    )]
    pub(crate) server: String,
    /// The API key [env: LONGHAUL_API_KEY, LONGHAUL_API_KEY_FILE]
    #[arg(long, value_name = "KEY", global = true)]
    pub(crate) api_key: Option<String>,
    /// How to print: for a person, as the API answers, or ids only
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t, global = true)]
    pub(crate) output: Form,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    #[default]
    Table,
    Json,
    Id,
}

#[derive(ClapArgs)]
pub(crate) struct TaskArgs {
    /// The model [default: the first that the server lists]
    #[arg(short, long)]
    pub(crate) model: Option<String>,
    /// The queue [default: default]
    #[arg(short, long)]
    pub(crate) queue: Option<String>,
    /// Place inside the queue, -100 to 100, higher first
    #[arg(short, long, allow_negative_numbers = true)]
    pub(crate) priority: Option<i64>,
}

#[derive(ClapArgs)]
pub(crate) struct RunArgs {
    /// What to ask; - reads stdin
    pub(crate) prompt: String,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(ClapArgs)]
pub(crate) struct SubmitArgs {
    /// What to ask: makes the body of a chat completion; - reads stdin
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub(crate) prompt: Option<String>,
    /// A file with the request body, sent on as it is; - reads stdin
    #[arg(short, long, value_name = "FILE", conflicts_with = "model")]
    pub(crate) file: Option<PathBuf>,
    /// The upstream's path
    #[arg(short, long, value_name = "PATH", default_value = "/v1/chat/completions")]
    pub(crate) endpoint: String,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    /// Wait for the end
    #[arg(short, long)]
    pub(crate) wait: bool,
    /// Longest wait, such as 30s or 2h
    #[arg(long, value_name = "TIME", value_parser = time, requires = "wait")]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Subcommand)]
pub(crate) enum TasksCommand {
    /// Print a task
    Get { id: String },
    /// Print tasks, newest first
    List {
        /// Only those in this state
        #[arg(short, long)]
        status: Option<String>,
        /// Only those in this queue
        #[arg(short, long)]
        queue: Option<String>,
        /// Only those of this model
        #[arg(short, long)]
        model: Option<String>,
        /// At most this many
        #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Wait for a task's end and print it
    Wait {
        id: String,
        /// Longest wait, such as 30s or 2h
        #[arg(long, value_name = "TIME", value_parser = time)]
        timeout: Option<Duration>,
    },
    /// Stream a task's answer; with -o json its events
    Watch { id: String },
    /// Stop a task
    Cancel { id: String },
    /// Run a failed, cancelled or expired task again
    Retry { id: String },
    /// Remove a task that has ended, with its request and its answer
    Delete {
        id: String,
        /// Stop it first if it has not ended
        #[arg(long)]
        force: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum BatchesCommand {
    /// Print a batch
    Get { id: String },
    /// Print batches, newest first
    List {
        /// At most this many
        #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Stop a batch
    Cancel { id: String },
    /// Submit a file of request lines: {"custom_id", "method", "url", "body"}
    Submit {
        /// The file; - reads stdin
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Wait for the end
        #[arg(short, long)]
        wait: bool,
    },
}

fn time(text: &str) -> Result<Duration, String> {
    shared::config::duration(text)
}
