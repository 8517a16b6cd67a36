# The library is not preloaded any more: nothing is lost, and whoever looks is told.
use strict;
use warnings;
use OpsRunner;
use Test::More;

my $ops = OpsRunner->start('preload');
my $node = $ops->{node};

subtest 'F20 shared_preload_libraries lost' => sub {
	$ops->environment('lost');
	$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{''});
	$node->restart;
	my ($run, $warning);
	is($node->psql('postgres', q{SELECT run_id FROM ops.queue_run('acme', 'lost', '0123456789abcdef', 'main')},
			stdout => \$run, stderr => \$warning), 0, 'a run is queued');
	like($warning, qr/WARNING:  no worker of this server will claim this run\nHINT:  Add ops_runner to shared_preload_libraries/, 'with a warning');
	like($ops->sql('SELECT state FROM ops.worker_status'), qr/preload/, 'the status view says why nothing happens');
	is($ops->status($run), 'queued', 'the run waits');
	$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', 'ops_runner');
	$node->restart;
	$ops->succeeds($run);
};

subtest 'all in all' => sub { $ops->sound };

done_testing();
