# Logical replication to a server that has the extension too: what is replicated is history there, not an order.
use strict;
use warnings;
use OpsRunner;
use Test::More;

my $publisher = OpsRunner->start('publisher', init => { allows_streaming => 'logical' });
my $subscriber = OpsRunner->start('subscriber', init => { allows_streaming => 'logical' });

sub replicate
{
	my ($name, $tables) = @_;
	$publisher->sql("CREATE PUBLICATION $name $tables");
	my $connection = $publisher->{node}->connstr . ' dbname=postgres';
	$subscriber->sql("CREATE SUBSCRIPTION $name CONNECTION '$connection' PUBLICATION $name WITH (copy_data = false)");
	# Held on the publisher, so that whoever executes them is the subscriber.
	$publisher->sql('ALTER SYSTEM SET ops_runner.max_concurrent_runs = 0');
	$publisher->{node}->reload;
	OpsRunner::until('the publisher claims nothing', sub { $publisher->sql('SHOW ops_runner.max_concurrent_runs') == 0 });
	my $requests = OpsRunner::services('requests');
	my $run = $publisher->queue($publisher->environment($name));
	OpsRunner::until('the run is replicated', sub { $subscriber->status($run) eq 'queued' });
	$subscriber->looks(6);
	is($subscriber->status($run), 'queued', 'the replicated run is not executed');
	is(OpsRunner::services('requests'), $requests, 'nothing was sent');
	$publisher->sql('ALTER SYSTEM RESET ops_runner.max_concurrent_runs');
	$publisher->{node}->reload;
	$publisher->succeeds($run);
	OpsRunner::until('the end is replicated', sub { $subscriber->status($run) eq 'success' });
	$subscriber->sql("DROP SUBSCRIPTION $name");
	$publisher->sql("DROP PUBLICATION $name");
}

subtest 'F44 the tables of runs are replicated' => sub {
	replicate('runs', 'FOR TABLE ops.projects, ops.environments, ops.runs, ops.run_phases, ops.run_events, ops.effects, ops.artifacts');
};

subtest 'F44 all tables are replicated' => sub {
	replicate('everything', 'FOR ALL TABLES');
};

subtest 'the subscriber works on runs of its own' => sub {
	$subscriber->succeeds($subscriber->queue($subscriber->environment('own')));
};

subtest 'all in all' => sub {
	$_->sound for $subscriber;
	is($publisher->crashes, 0, 'no re-initialisation of the publisher');
};

done_testing();
