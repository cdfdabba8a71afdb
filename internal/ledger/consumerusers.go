package ledger

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"jobtally/internal/events"
)

// consumersDir is the directory, in the data directory, with a file for each user of the embedded server that is a consumer.
const consumersDir = "consumers"

// accountPrefix begins the name of the NATS account of a consumer.
const accountPrefix = "CONSUMER_"

// ConsumerUser is the user of a consumer on a NATS server: what it may do there, and in the data directory of a service
// how it is known.
type ConsumerUser struct {
	Name       string        `json:"name"`
	Account    string        `json:"account,omitempty"` // whose decisions it is given; empty: all
	Partitions []int         `json:"partitions"`
	Password   events.Digest `json:"password_sha256"` // nobody guesses 130 random bits, however fast the hash is
	Created    time.Time     `json:"created"`
}

// NewPassword returns a password that nobody guesses.
func NewPassword() string { return rand.Text() }

// Questions are what the user of a consumer may ask of JetStream, in every partition, seen from the account that has the
// streams: what is next for its durable, and how far that is.
func (u *ConsumerUser) Questions() []string {
	return []string{"$JS.API.CONSUMER.MSG.NEXT.*." + u.Name, "$JS.API.CONSUMER.INFO.*." + u.Name}
}

// Acknowledgements is where the user acknowledges what it was given.
func (u *ConsumerUser) Acknowledgements() string { return "$JS.ACK.*." + u.Name + ".>" }

// InDomain returns a question as the user asks it, from its own account.
func InDomain(question string) string { return strings.Replace(question, "$JS.", "$JS."+Domain+".", 1) }

// Publishes returns the subjects that the user may publish to.
func (u *ConsumerUser) Publishes() (subjects []string) {
	for _, p := range u.Partitions {
		stream := events.Decisions.Name(p)
		for _, subject := range u.Questions() {
			subjects = append(subjects, strings.Replace(InDomain(subject), "*", stream, 1))
		}
		subjects = append(subjects, strings.Replace(u.Acknowledgements(), "*", stream, 1))
	}
	return subjects
}

// Inbox is the prefix of the subjects under which the user is answered.
func (u *ConsumerUser) Inbox() string { return "_INBOX_" + u.Name }

// NATSAccount is the account that the user has for itself. A NATS server sends an answer wherever the question says, also
// where its user may not publish: from here it reaches nothing but what is this consumer's, and no other consumer.
func (u *ConsumerUser) NATSAccount() string { return accountPrefix + u.Name }

func (u *ConsumerUser) permissions() *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: u.Publishes()},
		Subscribe: &server.SubjectPermission{Allow: []string{u.Inbox() + ".>"}},
	}
}

func userPath(dir, name string) string { return filepath.Join(dir, consumersDir, name+".json") }

// AddConsumerUser has the embedded server of a data directory, running or not, let a consumer in from now on. The error is
// ErrConsumerExists where it knows one of that name. With an error it knows none: half a file would be in the way of all.
func AddConsumerUser(dir string, u *ConsumerUser) error {
	if err := os.MkdirAll(filepath.Join(dir, consumersDir), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(userPath(dir, u.Name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s", ErrConsumerExists, u.Name)
	}
	if err != nil {
		return err
	}
	text, err := json.Marshal(u)
	if err == nil {
		_, err = f.Write(append(text, '\n'))
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// RemoveConsumerUser has the embedded server of a data directory let a consumer in no longer; what it is connected with is
// closed within a second. The error is fs.ErrNotExist where it does not know it.
func RemoveConsumerUser(dir, name string) error { return os.Remove(userPath(dir, name)) }

// ConsumerUsers returns the consumers that the embedded server of a data directory lets in, by name. A file that no consumer can
// have, such as the copy that an editor makes, lets nobody in.
func ConsumerUsers(dir string) (users []ConsumerUser, err error) {
	paths, err := filepath.Glob(userPath(dir, "*"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		u, err := readConsumerUser(dir, name)
		if ValidConsumer(name) != nil || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w: remove it with `projector consumer remove %s`", path, err, name)
		}
		users = append(users, u)
	}
	return users, nil
}

// readConsumerUser reads the file of a user. The name is what a client says: one that is no consumer's is nobody's.
func readConsumerUser(dir, name string) (u ConsumerUser, err error) {
	if err := ValidConsumer(name); err != nil {
		return u, err
	}
	text, err := os.ReadFile(userPath(dir, name))
	if err != nil {
		return u, err
	}
	if err = json.Unmarshal(text, &u); err == nil && u.Name != name {
		err = fmt.Errorf("%s is of another consumer", userPath(dir, name))
	}
	return u, err
}

// doorkeeper lets in whoever knows the password of this run, and the consumers that the data directory has.
type doorkeeper struct {
	e      *Embedded
	server *server.Server

	mu sync.Mutex // while an account is made
}

// Check compares in a time that does not depend on the answer.
func (d *doorkeeper) Check(client server.ClientAuthentication) bool {
	given := client.GetOpts()
	if given.Username == embeddedUser {
		return subtle.ConstantTimeCompare([]byte(given.Password), []byte(d.e.password)) == 1
	}
	u, err := readConsumerUser(d.e.dir, given.Username)
	if err != nil {
		return false
	}
	if hash := events.Hash([]byte(given.Password)); subtle.ConstantTimeCompare(hash[:], u.Password[:]) != 1 {
		return false
	}
	account, err := d.account(&u)
	if err != nil {
		d.e.log.Error("a consumer cannot be let in", "consumer", u.Name, "error", err)
		return false
	}
	client.RegisterUser(&server.User{Username: u.Name, Account: account, Permissions: u.permissions()})
	return true
}

// account returns the account of a consumer, which is made when it comes first.
func (d *doorkeeper) account(u *ConsumerUser) (*server.Account, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	account, err := d.server.LookupAccount(u.NATSAccount())
	if err == nil {
		return account, nil
	}
	if account, err = d.server.RegisterAccount(u.NATSAccount()); err != nil {
		return nil, err
	}
	for _, subject := range u.Questions() {
		err = errors.Join(err, account.AddServiceImport(d.server.GlobalAccount(), InDomain(subject), subject))
	}
	return account, errors.Join(err, account.AddServiceImport(d.server.GlobalAccount(), u.Acknowledgements(), u.Acknowledgements()))
}

// offer has the account that has the streams answer what the accounts of consumers ask.
func (d *doorkeeper) offer() error {
	streams := d.server.GlobalAccount()
	return errors.Join(
		streams.AddServiceExportWithResponse("$JS.API.CONSUMER.MSG.NEXT.*.*", server.Streamed, nil),
		streams.AddServiceExport("$JS.API.CONSUMER.INFO.*.*", nil),
		streams.AddServiceExport("$JS.ACK.>", nil),
	)
}

// expel closes the connections of consumers that were removed since they came, and perhaps made anew.
func (e *Embedded) expel() {
	connections, err := e.server.Connz(&server.ConnzOptions{Username: true, Limit: 1 << 20})
	if err != nil {
		return // the server is being stopped
	}
	for _, c := range connections.Conns {
		name, is := strings.CutPrefix(c.Account, accountPrefix)
		if !is {
			continue
		}
		if u, err := readConsumerUser(e.dir, name); err != nil || u.Created.After(c.Start) {
			e.server.DisconnectClientByID(c.Cid) // or it is gone by itself
		}
	}
}
