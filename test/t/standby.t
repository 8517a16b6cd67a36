# Standbys: quiet while they follow, at work soon after promotion, and careful with what the lost commits may have done.
use strict;
use warnings;
use OpsRunner;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

sub standby_of
{
	my ($primary, $name) = @_;
	$primary->{node}->backup($name);
	my $standby = PostgreSQL::Test::Cluster->new($name);
	$standby->init_from_backup($primary->{node}, $name, has_streaming => 1);
	$standby->start;
	return OpsRunner->around($standby);
}

my $first = OpsRunner->start('first', init => { allows_streaming => 1 });

subtest 'F40 a standby does nothing, and works soon after its promotion' => sub {
	my $standby = standby_of($first, 'second');
	OpsRunner::services('set', service => 'github', buildMs => 600_000);
	my $run = $first->queue($first->environment('f40', github => { poll_interval => '300 ms' }));
	OpsRunner::until('the build is dispatched', sub { $first->events($run) =~ /dispatched/ });
	$first->{node}->wait_for_catchup($standby->{node});
	is($standby->sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ops_runner worker'}), 0, 'no worker on the standby');
	is(slurp_file($standby->{node}->logfile) =~ /ops_runner/, '', 'its log has no word of us');
	$first->{node}->stop('immediate');
	my $requests = OpsRunner::services('requests');

	my $promoted = time;
	$standby->{node}->promote;
	OpsRunner::until('the standby works', sub { OpsRunner::services('requests') > $requests });
	my $seconds = time - $promoted;
	note sprintf 'first request %.2f s after the promotion', $seconds;
	cmp_ok($seconds, '<', 5, 'it works within 5 s');
	OpsRunner::services('set', service => 'github', buildMs => 300);
	$standby->succeeds($run);
	like(slurp_file($standby->{node}->logfile), qr/goes on in this promoted standby/, 'the log says why it goes on');
	$standby->sound;
	$first = $standby;
};

subtest 'F41 a promotion that lost the last commits repeats nothing' => sub {
	my $standby = standby_of($first, 'third');
	$first->environment($_) for 'f41-early', 'f41-late';
	OpsRunner::services('set', service => 'github', buildMs => 600_000);
	my $building = $first->queue('f41-early');
	$first->{node}->wait_for_catchup($standby->{node});
	my $unsent = $first->sql(q{SELECT run_id FROM ops.queue_run('acme', 'f41-late', '0123456789abcdef0123456789abcdef01234567', 'main', p_not_before => clock_timestamp() + interval '3 seconds')});
	$first->{node}->wait_for_catchup($standby->{node});

	# From here on the standby hears nothing.
	$standby->sql(q{ALTER SYSTEM SET primary_conninfo = ''});
	$standby->{node}->reload;
	OpsRunner::until('streaming has stopped', sub { $first->sql('SELECT count(*) FROM pg_stat_replication') == 0 });
	is($standby->status($unsent), 'queued', 'for the standby the run is queued');
	OpsRunner::until('the second build is dispatched', sub { $first->events($unsent) =~ /dispatched/ });
	my $deployed = $first->queue($first->environment('f41-lost'));
	OpsRunner::until('the lost run is dispatched', sub { $first->events($deployed) =~ /dispatched/ });
	my $lost = $first->tokens($deployed)->{build_image};
	$first->{node}->stop('immediate');

	$standby->{node}->promote;
	OpsRunner::until('the effects are looked for', sub { ($standby->ask("SELECT count(*) FROM ops.effects WHERE run_id = '$unsent'") // 0) > 0 });
	OpsRunner::services('set', service => 'github', buildMs => 300);
	$standby->succeeds($_) for $building, $unsent;
	like($standby->events($unsent), qr/the newest commits may be lost.*looking for its effect before anything is sent/, 'it was looked for first');
	is($standby->status($deployed), '', 'a run whose commit was lost does not exist');
	is(OpsRunner::effects()->{$lost}, 1, 'and what it began was not repeated');
	is_deeply([ grep { $_ > 1 } values %{ OpsRunner::effects() } ], [], 'no effect happened twice');
	is($standby->crashes, 0, 'no re-initialisation');
};

done_testing();
