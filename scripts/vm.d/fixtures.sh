make_fixtures() { :; }
