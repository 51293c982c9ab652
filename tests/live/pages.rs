//! The README and the guide, typed: each command that a page has a person type is typed here in the
//! page's own order, on one local market, or by another test, or has a reason why nobody types it. What
//! a page shows of the answers is what is printed: the same lines, whatever names, numbers and times
//! are in them.

mod page;
pub mod shape;
mod shell;

use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::timeout;

use page::{Line, sections};
use shell::Shell;

use crate::sandboxed::slot;

/// On an idle machine it takes two.
const LIMIT: Duration = Duration::from_mins(10);
/// Pages whose running text has commands to type.
const SPANS: [&str; 1] = ["day-2.md"];

/// Who types the commands of a section.
enum By {
    /// [`TOUR`] does.
    Tour,
    /// Another test: its program, module and name.
    Test(&'static str),
    /// Nobody, and why.
    Nobody(&'static str),
}
use By::{Nobody, Test, Tour};

/// Every page, and of each the sections that have a person type something.
const PAGES: &[(&str, &[(&str, By)])] = &[
    (
        "README.md",
        &[
            (
                "Two commands",
                Test("live::demo::it_shows_failovers_a_move_and_the_refund_and_leaves_nothing"),
            ),
            ("By hand", Tour),
        ],
    ),
    (
        "backup.md",
        &[
            ("Take one, list them", Tour),
            ("Know that they can be restored", Tour),
            ("Restore", Tour),
            ("Before a cluster is deleted", Test("kube::life::a_cluster_lives_by_kubectl_alone")),
            ("Export", Tour),
            ("Read one by hand", Tour),
        ],
    ),
    ("before-you-install.md", &[]),
    (
        "clients.md",
        &[
            (
                "By Sentinel's protocol",
                Test(
                    "live::sentinel::a_stock_client_follows_the_master_from_anywhere_on_the_tailnet",
                ),
            ),
            ("From another lease", Tour),
        ],
    ),
    (
        "day-2.md",
        &[
            ("Connecting applications", Tour),
            ("Reading `get` and `describe`", Tour),
            ("Edit", Tour),
            ("Redis of one node", Tour),
            ("Scale", Tour),
            ("Migrate", Tour),
            ("Providers", Tour),
            ("Switchover", Tour),
            ("Restart", Tour),
            (
                "When it waits for you",
                Nobody("it is refused where nothing is lost; the simulations say when it is taken"),
            ),
            ("Fence a node", Tour),
            ("Passwords and settings", Tour),
            ("A larger volume", Tour),
            ("Logs and events", Tour),
            ("Delete", Nobody("the quickstart deletes")),
            (
                "The store, and what it does not know",
                Test("live::recover::a_deleted_store_is_built_anew_while_writes_go_on"),
            ),
        ],
    ),
    (
        "devnet-faults.md",
        &[
            ("", Tour),
            (
                "At a distance",
                Test(
                    "live::distance::a_cluster_between_continents_moves_its_master_and_loses_nothing",
                ),
            ),
        ],
    ),
    ("failover.md", &[]),
    (
        "image.md",
        &[
            (
                "Build",
                Test(
                    "live::image::three_nodes_of_the_built_image_replicate_without_privileges_each_program_as_its_own_user",
                ),
            ),
            (
                "Pin the versions",
                Nobody("digest and versions are the reader's, and Debian keeps none for long"),
            ),
            (
                "Look into it",
                Nobody("it needs podman, which no test runs; the test of the image looks into it"),
            ),
            ("Push it, and name it by digest", Nobody("it needs a registry")),
        ],
    ),
    (
        "import.md",
        &[
            (
                "Cut over",
                Test(
                    "live::import::a_cluster_takes_over_from_a_redis_that_is_written_to_and_has_every_write",
                ),
            ),
            (
                "On Kubernetes",
                Nobody(
                    "it needs a Redis to import from on Kubernetes; the annotation is read by the same code as the command's word",
                ),
            ),
        ],
    ),
    (
        "install.md",
        &[
            (
                "1. Build",
                Test("live::installed::the_page_is_typed_into_a_bare_debian_from_top_to_bottom"),
            ),
            (
                "2. A place for the files",
                Test("live::installed::the_page_is_typed_into_a_bare_debian_from_top_to_bottom"),
            ),
            (
                "3. The wallet",
                Test("live::installed::the_page_is_typed_into_a_bare_debian_from_top_to_bottom"),
            ),
            (
                "4. The tailnet",
                Test("live::installed::the_page_is_typed_into_a_bare_debian_from_top_to_bottom"),
            ),
            (
                "5. The operator's own tailscaled",
                Nobody(
                    "it needs a key of the tailnet that a person made; the local market's operator has such a tailscaled",
                ),
            ),
            (
                "6. The node image",
                Test(
                    "live::image::three_nodes_of_the_built_image_replicate_without_privileges_each_program_as_its_own_user",
                ),
            ),
            (
                "7. Settings and a check",
                Test("live::installed::the_page_is_typed_into_a_bare_debian_from_top_to_bottom"),
            ),
            (
                "8. Run it",
                Test("live::installed::the_page_is_typed_into_a_bare_debian_from_top_to_bottom"),
            ),
            (
                "9. The first cluster",
                Test("live::installed::the_page_is_typed_into_a_bare_debian_from_top_to_bottom"),
            ),
        ],
    ),
    (
        "kubernetes.md",
        &[
            (
                "1. The images",
                Test(
                    "live::image::the_operators_image_runs_as_nobody_and_writes_nowhere_but_to_its_own",
                ),
            ),
            (
                "2. The secrets",
                Nobody(
                    "there is no kubelet that would give a pod its Secret; operators of the tests read files",
                ),
            ),
            ("3. The chart", Test("kube::transcript::what_the_guide_prints_happens")),
            ("4. A cluster", Test("kube::life::a_cluster_lives_by_kubectl_alone")),
            (
                "The command line",
                Test("kube::person::the_program_and_kubectls_plugin_ask_the_apiserver"),
            ),
            (
                "From the first cluster to the last",
                Test("kube::transcript::what_the_guide_prints_happens"),
            ),
        ],
    ),
    (
        "mesh.md",
        &[
            ("Policy", Tour),
            (
                "Check",
                Test(
                    "live::policy::the_check_is_content_with_the_local_market_and_names_what_a_policy_opens",
                ),
            ),
            ("headscale, step by step", Tour),
        ],
    ),
    ("mesh-operator.md", &[]),
    (
        "money.md",
        &[
            ("ACT for AKT", Tour),
            (
                "A treasury",
                Nobody("it needs Akash's own program and a key of somebody else's account"),
            ),
            ("Before you buy", Tour),
            ("The accounts", Tour),
        ],
    ),
    ("notifications.md", &[]),
    (
        "other-chain.md",
        &[("", Nobody("it needs a node of another chain, and accounts with coins there"))],
    ),
    (
        "quickstart.md",
        &[
            ("", Tour),
            ("An operator", Tour),
            ("A cluster", Tour),
            ("Write something", Tour),
            ("Look", Tour),
            ("Move the master, then a node", Tour),
            ("Scale, and delete", Tour),
            ("A manifest that cannot work", Tour),
        ],
    ),
    ("updates.md", &[]),
    ("versions.md", &[]),
];

/// A stop of the tour.
#[derive(Clone, Copy)]
enum Stop {
    /// A section is typed.
    Section(Typed),
    /// What the pages take for granted.
    Given(&'static str),
}
use Stop::{Given, Section};

/// A section as it is typed here.
#[derive(Clone, Copy)]
struct Typed {
    page: &'static str,
    heading: &'static str,
    /// Words of the page, and what they are on this market.
    puts: &'static [(&'static str, &'static str)],
    /// Commands with these words are left out, and why.
    without: &'static [(&'static str, &'static str)],
}

const fn at(page: &'static str, heading: &'static str) -> Typed {
    Typed { page, heading, puts: &[], without: &[] }
}

impl Typed {
    const fn puts(self, puts: &'static [(&'static str, &'static str)]) -> Self {
        Self { puts, ..self }
    }

    const fn without(self, without: &'static [(&'static str, &'static str)]) -> Self {
        Self { without, ..self }
    }
}

/// In the market's network, where the operator's machine is.
const INSIDE: (&str, &str) = ("akash-redis ", "akash-redis devnet exec akash-redis ");
const NO_APISERVER: (&str, &str) = ("kubectl", "there is no apiserver on the local market");
/// One of the backups, wherever the pages have the id of theirs.
const A_BACKUP: (&str, &str) =
    ("20261125T030000Z-x7k2", "$(akash-redis backups cache | awk 'NR == 2 { print $1 }')");

/// What is typed, in this order, on one market.
const TOUR: &[Stop] = &[
    Section(at("quickstart.md", "")),
    Section(at("quickstart.md", "An operator")),
    // Before anything is bought.
    Section(at("money.md", "Before you buy")),
    Section(at("quickstart.md", "A cluster")),
    Section(at("quickstart.md", "Write something")),
    Section(at("quickstart.md", "Look")),
    Section(at("quickstart.md", "Move the master, then a node")),
    Given("akash-redis wait cache --for=condition=Progressing=False"),
    Given(
        "redis-cli -s $AKASH_REDIS_DEVNET_DIR/redis.sock --user app -a secret set greeting hello",
    ),
    Given("akash-redis public-key > $AKASH_REDIS_DEVNET_DIR/public.key"),
    Section(at("clients.md", "From another lease").puts(&[
        ("akash-redis proxy", "akash-redis devnet exec akash-redis proxy"),
        ("akash-redis connect", "akash-redis devnet exec akash-redis connect"),
        ("@/etc/akash-redis/public.key", "@$AKASH_REDIS_DEVNET_DIR/public.key"),
        ("100.64.0.3", "$(akash-redis endpoint cache -o json | grep -o '100[.0-9]*' | sed -n 1p)"),
        ("100.64.0.4", "$(akash-redis endpoint cache -o json | grep -o '100[.0-9]*' | sed -n 2p)"),
    ])),
    Section(at("mesh.md", "Policy").puts(&[
        ("operator.yaml", "$AKASH_REDIS_CONFIG"),
        ("a.yaml", "manifests/quickstart.yaml"),
    ])),
    Section(
        at("mesh.md", "headscale, step by step")
            .puts(&[INSIDE])
            .without(&[("headscale", "the market's control server is another one")]),
    ),
    Section(at("money.md", "ACT for AKT").puts(&[("--max-akt 45", "--max-akt 45 --yes")])),
    Section(
        // The proxy of another page is at the usual port.
        at("day-2.md", "Connecting applications").puts(&[(
            "akash-redis proxy",
            "akash-redis devnet exec akash-redis proxy --listen 127.0.0.1:6390",
        )]),
    ),
    Section(at("day-2.md", "Reading `get` and `describe`")),
    Section(at("day-2.md", "Edit")),
    Section(at("day-2.md", "Redis of one node").puts(&[INSIDE])),
    // The market has four providers.
    Section(at("day-2.md", "Scale").puts(&[("--nodes 5", "--nodes 3")])),
    Section(at("day-2.md", "Migrate").puts(&[("cache 1", "cache 1 --wait")])),
    Section(at("day-2.md", "Providers")),
    Section(at("day-2.md", "Switchover").puts(&[("switchover cache", "switchover cache --wait")])),
    Section(at("day-2.md", "Restart")),
    Section(
        at("day-2.md", "Fence a node")
            .without(&[("--accept-loss", "it is refused where nothing is lost")]),
    ),
    Section(at("day-2.md", "Passwords and settings")),
    Section(at("day-2.md", "A larger volume")),
    Section(at("day-2.md", "Logs and events")),
    Section(at("devnet-faults.md", "")),
    Given("akash-redis devnet fault clear"),
    Section(at("quickstart.md", "Scale, and delete")),
    Section(at("quickstart.md", "A manifest that cannot work")),
    Section(at("README.md", "By hand")),
    Section(at("money.md", "The accounts")),
    Given(
        "sed \"/^  nodes:/a\\  backup: { to: file://$AKASH_REDIS_DEVNET_DIR/backups }\" manifests/quickstart.yaml > backup.yaml",
    ),
    Given("akash-redis apply -f backup.yaml --yes --wait"),
    Section(at("backup.md", "Take one, list them")),
    Section(
        at("backup.md", "Know that they can be restored")
            .puts(&[A_BACKUP])
            .without(&[NO_APISERVER]),
    ),
    Section(
        at("backup.md", "Restore")
            .puts(&[("2026-11-25T10:15:00Z", "$(date --utc +%FT%TZ) --wait")]),
    ),
    Section(at("backup.md", "Export")),
    Section(at("backup.md", "Read one by hand").puts(&[
        ("root.secret", "$AKASH_REDIS_DEVNET_DIR/root.secret"),
        (
            "20261125T030000Z-x7k2.rdb",
            "$(find $AKASH_REDIS_DEVNET_DIR/backups -name '*.rdb' | head -1)",
        ),
    ])),
];

/// Sections of pages that are typed on the tour.
fn stops() -> impl Iterator<Item = Typed> {
    TOUR.iter().filter_map(|stop| match stop {
        Section(typed) => Some(*typed),
        Given(_) => None,
    })
}

#[test]
fn who_types_each_command_of_each_page_is_known() {
    let known: Vec<&str> = PAGES.iter().map(|(page, _)| *page).collect();
    for page in page::names() {
        assert!(known.contains(&page.as_str()), "{page} is new: say in PAGES who types it");
    }
    for (page, rows) in PAGES {
        let there: Vec<String> =
            sections(page, SPANS.contains(page)).into_iter().map(|s| s.heading).collect();
        let listed: Vec<&str> = rows.iter().map(|(heading, _)| *heading).collect();
        assert_eq!(there, listed, "{page}: sections with commands, and those of PAGES");
        for (heading, by) in *rows {
            match by {
                Tour => assert!(
                    stops().any(|stop| (stop.page, stop.heading) == (*page, *heading)),
                    "no stop of the tour is {page}, {heading}"
                ),
                Test(name) => exists(name),
                Nobody(why) => assert!(!why.is_empty()),
            }
        }
    }
    let listed = |stop: Typed| {
        PAGES.iter().any(|(page, rows)| {
            *page == stop.page
                && rows.iter().any(|(heading, by)| *heading == stop.heading && matches!(by, Tour))
        })
    };
    for stop in stops() {
        assert!(listed(stop), "PAGES does not have {}, {} on the tour", stop.page, stop.heading);
    }
}

/// A test has this name.
fn exists(name: &str) {
    let [program, module, test] = name.split("::").collect::<Vec<_>>()[..] else {
        panic!("{name} is no program, module and test")
    };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{program}/{module}.rs"));
    let source = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(source.contains(&format!("#[test]\nfn {test}()")), "{name} is no test");
}

/// Types a section of a page.
async fn types(shell: &mut Shell, typed: Typed) {
    println!("\n# {}, {}", typed.page, typed.heading);
    let spans = SPANS.contains(&typed.page);
    let section = sections(typed.page, spans)
        .into_iter()
        .find(|section| section.heading == typed.heading)
        .unwrap_or_else(|| panic!("{} has no {}", typed.page, typed.heading));
    for Line { command, shown } in section.lines {
        if let Some((_, why)) = typed.without.iter().find(|(words, _)| command.contains(words)) {
            println!("$ {command}   (left out: {why})");
            continue;
        }
        let line = Line { command: shell.here(&command, typed.puts), shown };
        shell.types(&line).await;
        if spans {
            shell.waits().await;
        }
    }
}

#[test]
fn what_the_readme_and_the_guide_have_a_person_type_works_and_prints_what_they_show() {
    let dir = tempfile::Builder::new().prefix("pages").tempdir_in("/tmp").unwrap();
    Runtime::new().unwrap().block_on(async {
        let _slot = slot().await;
        let mut shell = Shell::new(dir.path());
        let tour = async {
            for stop in TOUR {
                match stop {
                    Section(typed) => types(&mut shell, *typed).await,
                    Given(line) => {
                        shell.types(&Line { command: (*line).to_owned(), shown: Vec::new() }).await;
                    }
                }
            }
        };
        timeout(LIMIT, tour).await.expect("it ends in time");
        shell.ends().await;
    });
}
