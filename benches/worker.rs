//! A worker of a measurement: the binary as a process of its own, which knows of its world by a configuration file.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use offramp_sandbox::World;
use serde_json::{Value, json};

/// It is killed when this is dropped.
pub(crate) struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    /// Starts it with its files in a folder, on the queue and the target groups of a world whose AWS is at `aws`.
    pub(crate) fn start(
        folder: &Path,
        name: &str,
        aws: &str,
        (cluster, kubeconfig): (&str, &Path),
        world: &World,
    ) -> Self {
        let target_groups: Vec<String> = world.balancers.all().map(|group| group.arn.to_string()).collect();
        let config = json!({
            "queue": { "url": format!("{aws}/111122223333/offramp") },
            "aws": { "endpoint_url": aws, "region": "eu-west-1" },
            "clusters": [{ "name": cluster, "kubeconfig": kubeconfig }],
            "target_groups": target_groups,
            "admin": { "listen": "127.0.0.1:0" },
            "log": { "format": "json" },
        });
        let (file, log) = (folder.join(format!("{name}.yaml")), folder.join(format!("{name}.log")));
        // JSON is YAML.
        fs::write(&file, config.to_string()).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_offramp"))
            .args(["run", "--config"])
            .arg(file)
            .env_clear()
            .env("HOME", folder)
            .env("AWS_ACCESS_KEY_ID", "sandbox")
            .env("AWS_SECRET_ACCESS_KEY", "sandbox")
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn is_ready(&self) -> bool {
        let Some(admin) = self.admin_address() else { return false };
        let Ok(mut stream) = TcpStream::connect(admin) else { return false };
        write!(stream, "GET /ready HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.starts_with("HTTP/1.1 200")
    }

    fn admin_address(&self) -> Option<SocketAddr> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter_map(|line| line["address"].as_str()?.parse().ok()).next()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
