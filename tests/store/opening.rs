//! Opening: which URLs are taken, and what must not be opened.

use std::os::unix::fs::PermissionsExt as _;

use greenroom::{
    config::{Secret, StoreConfig},
    store::{Store, StoreError},
};

use super::{Database, Kind, build::*, run};

fn refusal(url: Option<&str>) -> String {
    let config = StoreConfig { url: url.map(Secret::new), ..StoreConfig::default() };
    match Store::open(&config).map(drop) {
        Err(StoreError::Setup(text)) => {
            assert!(!text.contains('\n') && !text.contains("s3cret"), "{text}");
            text
        }
        other => panic!("{url:?}: {other:?}"),
    }
}

#[test]
fn only_sqlite_files_and_postgres_are_taken() {
    assert!(refusal(None).contains("store.url"));
    for url in ["", "greenroom.db", "mysql://u:s3cret@h/d", "postgres:u:s3cret@h/d", "postgre://u:s3cret@h/d"] {
        assert!(refusal(Some(url)).contains("must begin with sqlite: or postgres://"), "{url}");
    }
    for url in ["sqlite:", "sqlite::memory:", "sqlite://"] {
        assert!(refusal(Some(url)).contains("needs a file"), "{url}");
    }
    refusal(Some("postgres://u:p@s3cret@h/d"));
    refusal(Some("postgres://u:s3cret@h:nonsense/d"));
    refusal(Some("postgres:///d?host=/nowhere&user=u&password=s3cret"));
    let nobody_there = refusal(Some("postgres://u:s3cret@127.0.0.1:1/d"));
    assert!(nobody_there.contains("127.0.0.1"), "{nobody_there}");
    let folder = tempfile::tempdir().unwrap();
    assert!(refusal(Some(&format!("sqlite:{}", folder.path().display()))).contains("directory"));
}

#[test]
fn a_new_folder_is_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/deep/file:a?b%20c.db");
    let config = StoreConfig { url: Some(Secret::new(format!("sqlite:{}", path.display()))), ..Default::default() };
    let store = Store::open(&config).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(&path), 0o600);
    drop(store);
}

#[test]
fn a_second_server_on_one_file_is_refused() {
    run(Kind::Sqlite, |db| async move {
        let store = db.open();
        store.append(create(&session(&key("k")))).await.unwrap();
        // By another name it is still the same file.
        let link = db.folder.path().join("link.db");
        std::os::unix::fs::symlink(db.folder.path().join("test.db"), &link).unwrap();
        for url in [db.url.clone(), format!("sqlite://{}", link.display())] {
            assert!(refusal(Some(&url)).contains("another server"), "{url}");
        }
        store.append(append(&key("k"), 1, 1, &["still at work"])).await.unwrap();
        drop(store);
        assert_eq!(db.open().claim(&key("k")).await.unwrap().unwrap().last_seq, 2);
    });
}

#[test]
fn two_servers_share_one_postgres() {
    run(Kind::Postgres, |db: Database| async move {
        // They also migrate at the same time.
        let (one, two) = std::thread::scope(|scope| {
            let one = scope.spawn(|| db.open());
            (db.open(), one.join().unwrap())
        });
        one.append(create(&session(&key("k")))).await.unwrap();
        let claimed = two.claim(&key("k")).await.unwrap().unwrap();
        assert!(one.append(append(&key("k"), 1, 1, &["x"])).await.is_err(), "fenced");
        two.append(append(&key("k"), claimed.epoch, 1, &["x"])).await.unwrap();
    });
}
