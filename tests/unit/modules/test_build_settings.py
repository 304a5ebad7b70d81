"""A build in a container gets those settings of its machine that it can use."""

from ansible.module_utils.build_settings import apt_conf, debian_mirror, pip_conf


def test_the_mirror_is_found_in_both_forms_of_sources() -> None:
    assert debian_mirror(["Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie\n"]) == (
        "http://mirror.example/debian"
    )
    assert debian_mirror(["# comment\ndeb [signed-by=/k.gpg] https://mirror.example/debian/ trixie main\n"]) == (
        "https://mirror.example/debian"
    )


def test_a_host_that_is_no_debian_has_no_debian_mirror() -> None:
    assert debian_mirror(["deb http://archive.ubuntu.example/ubuntu noble main\n", ""]) == ""
    assert debian_mirror(["URIs: http://mirror.example/debian-security\n"]) == ""


def test_apt_keeps_how_to_download_and_drops_files_of_the_host() -> None:
    dump = (
        'APT::Install-Recommends "1";\n'
        'Acquire::http::Proxy "http://proxy.example:3128";\n'
        'Acquire::https::CAInfo "/etc/ssl/private-ca.pem";\n'
        'Acquire::Check-Valid-Until "false";\n'
        'Acquire::https "";\n'
    )
    assert apt_conf(dump) == 'Acquire::http::Proxy "http://proxy.example:3128";\nAcquire::Check-Valid-Until "false";\n'


def test_pip_variables_win_over_files_and_local_addresses_are_dropped() -> None:
    file = (
        "[global]\nindex-url = https://pypi.example/simple\ncert = /etc/ca.pem\n"
        "extra-index-url = file:///opt/pypi https://more.example/simple\n"
    )
    environment = {"PIP_INDEX_URL": "https://other.example/simple", "PIP_CERT": "/etc/ca.pem"}
    assert pip_conf([file], environment) == (
        "[global]\nextra-index-url = https://more.example/simple\nindex-url = https://other.example/simple\n"
    )


def test_no_settings_give_no_file() -> None:
    assert pip_conf(["[global]\nfind-links = /opt/wheels\n"], {}) == ""
