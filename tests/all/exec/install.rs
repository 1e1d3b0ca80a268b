//! `safeconduct install DIR`.

use super::*;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("there").mode() & 0o7777
}

#[tokio::test]
async fn it_copies_itself_in_one_step_and_says_so() {
    let world = Safeconduct::new(binary());
    let directory = world.path().join("bin");
    let output = world.run(&["install", &directory.display().to_string()]).await.expect_code(0);
    let program = directory.join("safeconduct");
    let bytes = fs::metadata(binary()).expect("there").len();
    assert_eq!(output.stdout, format!("wrote {} ({bytes} bytes)\n", program.display()));
    assert_eq!((mode(&directory), mode(&program)), (0o755, 0o755));
    assert_eq!(fs::read(&program).expect("readable"), fs::read(binary()).expect("readable"));
    let before = fs::metadata(&program).expect("there").ino();
    let copy = world.with_binary(&program);
    copy.run(&["install", &directory.display().to_string()]).await.expect_code(0);
    assert_ne!(fs::metadata(&program).expect("there").ino(), before, "a program that runs is replaced, not written");
    assert_eq!(fs::read_dir(&directory).expect("there").count(), 1, "nothing else is left");
}

#[tokio::test]
async fn it_refuses_links_and_directories_that_others_can_write() {
    let world = Safeconduct::new(binary());
    let directory = |name: &str, bits: u32| {
        let path = world.path().join(name);
        fs::create_dir(&path).expect("it is new");
        fs::set_permissions(&path, fs::Permissions::from_mode(bits)).expect("ours");
        path
    };
    let (good, open) = (directory("good", 0o755), directory("open", 0o777));
    let link = world.path().join("link");
    std::os::unix::fs::symlink(&good, &link).expect("ours");
    let file = world.write("file", "x");
    for (path, words) in [(&open, "can be written by others"), (&link, "is a link"), (&file, "is no directory")] {
        let output = world.run(&["install", &path.display().to_string()]).await.expect_code(CONFIG);
        assert!(output.stdout.is_empty() && output.stderr.contains(words), "{}", output.stderr);
    }
    let precious = world.write("precious", "x");
    std::os::unix::fs::symlink(&precious, good.join("safeconduct")).expect("ours");
    let output = world.run(&["install", &good.display().to_string()]).await.expect_code(CONFIG);
    assert!(output.stderr.contains("no plain file"), "{}", output.stderr);
    assert_eq!(fs::read_to_string(&precious).expect("ours"), "x");
    let missing = world.path().join("none/bin");
    let output = world.run(&["install", &missing.display().to_string()]).await.expect_code(TEMPORARY);
    assert_eq!(output.stdout, "");
}
