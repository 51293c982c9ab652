//! Builds the node image with the program under test, and unpacks it.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use akash_redis::devnet::provider::container::ImageRoot;
use akash_redis::devnet::tailnet::peers_dir;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::stage::PROGRAM;

/// Storage of the builder and what it builds; it goes when the target directory does.
const DIR: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/image");
/// What is left of a build for the inside of the sandbox.
const FOUND: &str = "unpacked.json";
const FOUND_APPLICATION: &str = "unpacked-application.json";
/// Names of the images, and of the containers that unpack them.
const NAME: &str = "akash-redis-node-under-test";
const OPERATOR: &str = "akash-redis-under-test";
const APPLICATION: &str = "application-under-test";
/// The git revision that the image is told to be of.
pub const REVISION: &str = "4711";
const CONTAINERFILE: &str = include_str!("../../image/Containerfile");
const GUIDE: &str = include_str!("../../docs/guide/clients.md");

/// The image, unpacked.
#[derive(Deserialize, Serialize)]
pub struct Unpacked {
    /// Its files.
    pub dir: PathBuf,
    /// Its configuration, as OCI has it.
    pub config: Value,
}

/// Takes image and files away again. Nobody else builds meanwhile.
pub struct Built {
    buildah: Buildah,
    _lock: File,
}

impl Drop for Built {
    fn drop(&mut self) {
        self.buildah.forget();
    }
}

/// Builds the image; to be called outside of the sandbox. The base and the Debian packages are kept
/// for the next time.
pub fn build() -> Built {
    let (built, base_name) = prepared();
    let buildah = &built.buildah;
    let programs = name_of(
        "programs",
        &format!("{base_name}{}", CONTAINERFILE.split_once("\nFROM programs\n").unwrap().0),
    );
    if !buildah.has(&programs) {
        said(buildah.script(&base_name, &programs).args(["--target", "programs"]));
    }
    let context = format!("programs=container-image://localhost/{programs}");
    said(buildah.script(&base_name, NAME).args(["--build-context", &context]));
    remember(&buildah.unpack(NAME), FOUND);
    built
}

/// Builds the image of an application too, on top of the nodes' and as the guide for applications in
/// other leases says; `program` is its `main.py`. Both are unpacked.
pub fn build_application(program: &str) -> Built {
    let built = build();
    let context = Path::new(DIR).join("application");
    fs::create_dir_all(context.join("app")).unwrap();
    fs::write(context.join("app/main.py"), program).unwrap();
    let (_, file) = GUIDE.split_once("```dockerfile\n").unwrap();
    let (from, file) = file.split_once("```").unwrap().0.split_once('\n').unwrap();
    assert!(from.starts_with("FROM ") && from.contains("/akash-redis-node@sha256:"), "{from}");
    let containerfile = context.join("Containerfile");
    fs::write(&containerfile, format!("FROM localhost/{NAME}\n{file}")).unwrap();
    let mut command = built.buildah.command();
    command.args(["build", "--tag", APPLICATION, "--file"]).arg(&containerfile).arg(&context);
    said(&mut command);
    remember(&built.buildah.unpack(APPLICATION), FOUND_APPLICATION);
    built
}

fn remember(unpacked: &Unpacked, name: &str) {
    fs::write(Path::new(DIR).join(name), serde_json::to_vec(unpacked).unwrap()).unwrap();
}

/// Builds and unpacks the operator's image.
pub fn build_operator() -> (Built, Unpacked) {
    let (built, base) = prepared();
    let mut script = built.buildah.script(&base, OPERATOR);
    said(script.arg("operator"));
    let unpacked = built.buildah.unpack(OPERATOR);
    (built, unpacked)
}

/// A builder that has the base, and its name.
fn prepared() -> (Built, String) {
    assert!(
        rustix::process::geteuid().is_root(),
        "the image is built and unpacked with files of several users; run this test as root"
    );
    fs::DirBuilder::new().recursive(true).mode(0o755).create(DIR).unwrap();
    let lock = File::create(Path::new(DIR).join("lock")).unwrap();
    lock.lock().unwrap();
    let buildah = Buildah::new();
    buildah.forget();

    let base = said(Command::new("tests/image/base.sh").current_dir(env!("CARGO_MANIFEST_DIR")));
    let base_name = name_of("base", &base);
    if !buildah.has(&base_name) {
        let file = Path::new(DIR).join("Base");
        fs::write(&file, "FROM scratch\nADD base.tar /\n").unwrap();
        said(buildah.command().args(["build", "--tag", &base_name, "--file"]).arg(file).arg(&base));
    }
    (Built { buildah, _lock: lock }, base_name)
}

/// What was built; works inside of the sandbox too.
pub fn found() -> Unpacked {
    read(FOUND)
}

/// The application's image; works inside of the sandbox too.
pub fn found_application() -> Unpacked {
    read(FOUND_APPLICATION)
}

fn read(name: &str) -> Unpacked {
    serde_json::from_slice(&fs::read(Path::new(DIR).join(name)).unwrap()).unwrap()
}

impl Unpacked {
    /// For nodes that run it as a container runtime would.
    pub fn root(&self) -> ImageRoot {
        let list = |what: &str| -> Vec<&str> {
            self.config[what].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect()
        };
        let env = list("Env").into_iter().map(|line| line.split_once('=').unwrap());
        ImageRoot {
            dir: self.dir.clone(),
            entry_point: list("Entrypoint").into_iter().map(Into::into).collect(),
            env: env.map(|(key, value)| (key.into(), value.into())).collect(),
        }
    }

    /// User and group of this name in the image.
    pub fn user(&self, name: &str) -> (u32, u32) {
        let passwd = fs::read_to_string(self.dir.join("etc/passwd")).unwrap();
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name)).unwrap();
        let numbers: Vec<u32> =
            line.split(':').skip(2).take(2).map(|n| n.parse().unwrap()).collect();
        (numbers[0], numbers[1])
    }
}

/// The builder, with a storage of its own that needs nothing of the kernel.
struct Buildah {
    storage: PathBuf,
}

impl Buildah {
    fn new() -> Self {
        let storage = Path::new(DIR).join("storage.conf");
        fs::write(&storage, format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{DIR}/storage\"\nrunroot = \"{DIR}/run\"\n")).unwrap();
        Self { storage }
    }

    fn with_storage(&self, mut command: Command) -> Command {
        command.env("CONTAINERS_STORAGE_CONF", &self.storage).env("BUILDAH_ISOLATION", "chroot");
        command
    }

    fn command(&self) -> Command {
        self.with_storage(Command::new("buildah"))
    }

    /// The script that users build with, for the program under test and the tests' tailscaled.
    fn script(&self, base: &str, image: &str) -> Command {
        let mut command = self.with_storage(Command::new("image/build.sh"));
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("BUILDER", "buildah")
            .env("CARGO_TARGET_DIR", env!("CARGO_TARGET_TMPDIR"));
        command
            .env("AKASH_REDIS", PROGRAM)
            .env("TAILSCALED", peers_dir().unwrap().join("tailscaled"));
        command.env("BASE", base).env("IMAGE", image).env("REVISION", REVISION);
        command
    }

    fn unpack(&self, image: &str) -> Unpacked {
        let inspected = said(self.command().args(["inspect", "--type", "image", image]));
        let config: Value = serde_json::from_str(&inspected).unwrap();
        said(self.command().args(["from", "--name", image, image]));
        let dir = said(self.command().args(["mount", image])).into();
        Unpacked { dir, config: config["OCIv1"]["config"].clone() }
    }

    fn has(&self, image: &str) -> bool {
        self.command()
            .args(["inspect", "--type", "image", image])
            .output()
            .unwrap()
            .status
            .success()
    }

    /// An earlier run may have been killed.
    fn forget(&self) {
        // What is built upon another one goes first.
        for name in [APPLICATION, NAME, OPERATOR] {
            for what in ["rm", "rmi"] {
                // There may be none.
                let _ = self.command().args([what, name]).output();
            }
        }
    }
}

/// A name that is another when the content is.
fn name_of(what: &str, content: &str) -> String {
    format!("{what}-{}", &hex::encode(Sha256::digest(content))[..12])
}

/// What a program printed, without the end of the line.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?} cannot be started ({error}); run make test-deps")
    });
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}
