module bundlerun.dev/local/supervisor

go 1.26.0
